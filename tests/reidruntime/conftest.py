"""What tests of the runtime share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def precision_switches() -> Iterator[None]:
    """Restore, after the test, torch's switches for the precision of matrix products."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"
