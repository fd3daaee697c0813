"""Peers on a GPU are at their best, and leave torch as it was."""

from typing import Any

import pytest
import torch

from benchmarks.peers import gpu_peers


def test_peers_of_a_gpu_are_compiled_without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA graphs are captured as for every side; a batch size that would not be compiled any more is an error."""
    options_of_calls: list[dict[str, Any]] = []

    def compile_(network: Any, **options: Any) -> Any:
        options_of_calls.append(options)

        def run(images: torch.Tensor) -> torch.Tensor:
            config = torch._dynamo.config
            assert (config.recompile_limit, config.fail_on_recompile_limit_hit) == (64, True)
            return network(images)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    network, images = torch.nn.Identity(), torch.zeros(2)
    for mode in ("max-autotune", "default"):
        assert gpu_peers._compiled(network, mode)(images) is images
    assert options_of_calls == [
        {"dynamic": False, "mode": "max-autotune-no-cudagraphs"},
        {"dynamic": False, "mode": "default"},
    ]


def test_torch_is_as_it_was_behind_its_best() -> None:
    """TF32 and cuDNN's search are on while a peer is made ready, and what they were before behind it."""
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.benchmark, cudnn.allow_tf32
    for tf32, precision in ((True, "high"), (False, "highest")):
        with gpu_peers._torch_at_its_best(tf32=tf32):
            assert (cudnn.benchmark, cudnn.allow_tf32) == (True, tf32)
            assert torch.get_float32_matmul_precision() == precision
    assert (torch.get_float32_matmul_precision(), cudnn.benchmark, cudnn.allow_tf32) == before
