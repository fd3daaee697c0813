"""Integer products: exact, with residuals that are measured."""

import numpy as np
import onnx
from onnx import TensorProto, helper
from reidgallery.scan.int8_scan import GALLERY_LIMIT, MATMUL_INTEGER, QUERY_LIMIT, code_rows, multiply

from tests.standins.galleries import people


def test_integer_products_are_exact_and_their_residual_is_measured() -> None:
    """The integer product is NumPy's, at the limits of the codes too; codes and residual make up the row."""
    rng = np.random.default_rng(5)
    queries = rng.choice([-QUERY_LIMIT, 0, QUERY_LIMIT], (7, 300)).astype(np.int8)
    columns = rng.choice([-GALLERY_LIMIT, GALLERY_LIMIT], (300, 40)).astype(np.int8)
    queries[0] = QUERY_LIMIT
    columns[:, 0] = GALLERY_LIMIT
    expected = queries.astype(np.int64) @ columns.astype(np.int64)
    assert (multiply(queries, columns, 1) == expected).all()
    rows = people(rng, 10, 300)
    coded = code_rows(rows, GALLERY_LIMIT)
    residuals = np.linalg.norm(rows - coded.codes * coded.scales[:, None], axis=1)
    np.testing.assert_allclose(coded.residuals, residuals, rtol=1e-12)
    assert np.abs(coded.codes).max() == GALLERY_LIMIT


def test_the_written_out_network_is_one_integer_product() -> None:
    """The bytes of the int8 scan are a valid ONNX file with a single MatMulInteger."""
    model = onnx.load_from_string(MATMUL_INTEGER)
    onnx.checker.check_model(model, full_check=True)
    node = helper.make_node("MatMulInteger", ["q", "g", "z"], ["s"])
    assert list(model.graph.node) == [node]
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
