"""Operations are counted right, and the peak is the greatest that was measured."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import operations, peak_kernels
from benchmarks.harness.operations import Peak, operations_per_image, peak
from reidexport.checkpoint.loading import load_checkpoint
from reidexport.export.graph import graph_from_checkpoint
from tests.conftest import Exported


def test_operations_are_those_that_torch_counts(exported: Exported, tmp_path: Path) -> None:
    """Convolutions and products of an exported file cost what torch's own counter says of the graph."""
    graph = graph_from_checkpoint(load_checkpoint(exported.checkpoint))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        graph(graph.example(1))
    assert operations_per_image(exported.onnx) == pytest.approx(counter.get_total_flops(), rel=1e-6)
    assert operations_per_image(exported.fp16) == operations_per_image(exported.onnx)


def test_the_peak_is_the_greatest(monkeypatch: pytest.MonkeyPatch) -> None:
    """No library's product and no kernel was ever faster than the peak, whose name is that of the fastest."""
    kernel = peak_kernels.Kernel("multiply-add", 2, (np.ones(1), np.ones(1)), lambda *_: np.ones(1))
    monkeypatch.setattr(operations, "_highest", {})
    monkeypatch.setattr(operations, "kernels", lambda _: (kernel,))
    monkeypatch.setattr(operations, "num_threads", lambda: 3)
    monkeypatch.setattr(operations, "_gop_per_s", lambda _: 2.0)
    for of_the_kernel, expected in [
        (1.0, Peak(2.0, "numpy.matmul float32")),
        (3.0, Peak(3.0, "multiply-add, 3 threads")),
        (1.0, Peak(3.0, "multiply-add, 3 threads")),
    ]:
        monkeypatch.setattr(operations, "gop_per_s", lambda *_, value=of_the_kernel: value)
        assert peak("fp16") == expected
