"""Triton's requests and responses, in its Python processes only."""

from typing import Any

import triton_python_backend_utils as pb_utils  # Triton's
from numpy.typing import NDArray

from reidruntime.errors import ReidExportError


def values(request: Any, name: str) -> NDArray[Any]:
    """The tensor of that name in a request."""
    array: NDArray[Any] = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
    return array


def answer(name: str, array: NDArray[Any]) -> Any:
    """A response of one tensor."""
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array)])


def refusal(error: ReidExportError) -> Any:
    """The response to a request that cannot be answered for what it holds."""
    refused = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
    return pb_utils.InferenceResponse(error=refused)


def failure(error: ReidExportError) -> Any:
    """The response to a request that could be answered, if it were not for something else."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))
