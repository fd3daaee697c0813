"""Inner products in 8-bit integers, with a bound on what the rounding did to them.

A row x is stored as ``scale * codes + residual``, and the norm of the residual is measured, in float64. By Cauchy and
Schwarz the inner product of two coded rows is at most ``|q_residual| * |g| + |q_coded| * |g_residual|`` away from the
true one.

Queries take 8 bits and gallery rows 7: on a CPU without VNNI the sum of two products then still fits 16 bits, where
ONNX Runtime's kernels would otherwise saturate.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from reidruntime.errors import NotInstalledError

Features = NDArray[np.float32]
Floats64 = NDArray[np.float64]

QUERY_LIMIT, GALLERY_LIMIT = 127, 63
MAX_DIM = 130_000  # so that sums fit 32 bits
_ZERO_POINT = 128
_ROWS_AT_ONCE = 32  # so that they stay in the cache

# MatMulInteger(q: uint8 [Q, D], g: int8 [D, N], zero point of q) -> s: int32 [Q, N]; opset 13. Written out, because the
# runtime does not need the onnx package.
MATMUL_INTEGER = (
    b'\x08\x08:u\n\x1b\n\x01q\n\x01g\n\x01z\x12\x01s"\rMatMulInteger\x12\x04int8'
    b"Z\x15\n\x01q\x12\x10\n\x0e\x08\x02\x12\n\n\x03\x12\x01Q\n\x03\x12\x01D"
    b"Z\x15\n\x01g\x12\x10\n\x0e\x08\x03\x12\n\n\x03\x12\x01D\n\x03\x12\x01N"
    b"Z\x0b\n\x01z\x12\x06\n\x04\x08\x02\x12\x00"
    b"b\x15\n\x01s\x12\x10\n\x0e\x08\x06\x12\n\n\x03\x12\x01Q\n\x03\x12\x01NB\x04\n\x00\x10\r"
)


class CodedRows(NamedTuple):
    """Rows in 8-bit integers.

    Attributes:
        codes: int8, (N, D).
        scales: float64, (N,): what a code of 1 stands for.
        residuals: float64, (N,): the norm of what the codes leave out.
    """

    codes: NDArray[np.int8]
    scales: Floats64
    residuals: Floats64


def code_rows(rows: Features, limit: int) -> CodedRows:
    """Round every row to the integers of ``[-limit, limit]``, with a scale of its own."""
    coded = CodedRows(np.empty(rows.shape, np.int8), np.empty(len(rows)), np.empty(len(rows)))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        exact = rows[some].astype(np.float64)
        largest = np.abs(exact).max(axis=1)
        scales = np.where(largest > 0, largest / limit, 1.0)
        codes = np.rint(exact / scales[:, None])
        exact -= codes * scales[:, None]
        coded.codes[some], coded.scales[some] = codes, scales
        coded.residuals[some] = np.sqrt(np.einsum("nd,nd->n", exact, exact))
    return coded


def can_multiply() -> bool:
    """Whether ONNX Runtime, which multiplies, is installed."""
    return find_spec("onnxruntime") is not None


def multiply(queries: NDArray[np.int8], columns: NDArray[np.int8], threads: int) -> NDArray[np.int32]:
    """Exact integer inner products.

    Args:
        queries: codes up to ``QUERY_LIMIT``, (Q, D).
        columns: transposed codes up to ``GALLERY_LIMIT``, (D, N).
        threads: of the product.

    Returns:
        int32, (Q, N).

    Raises:
        NotInstalledError: ONNX Runtime is not installed.
    """
    shifted = queries.view(np.uint8) ^ np.uint8(_ZERO_POINT)
    inputs = {"q": shifted, "g": columns, "z": np.array(_ZERO_POINT, np.uint8)}
    product: NDArray[np.int32] = _session(threads).run(None, inputs)[0]
    return product


@cache
def _session(threads: int) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise NotInstalledError(
            'The int8 scan needs ONNX Runtime: pip install "reidexport[cpu]", or scan="float32".'
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(MATMUL_INTEGER, options, providers=["CPUExecutionProvider"])
