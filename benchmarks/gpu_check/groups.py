"""The groups of steps, in the order in which time is given to them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Steps that share a process.

    Attributes:
        name: how it is called.
        function: "module:name", imported by the worker only.
        least_s: with less time left it is not begun.
        limit_s: it is ended after that.
        uses_gpu: False hides the GPU from it.
    """

    name: str
    function: str
    least_s: float
    limit_s: float
    uses_gpu: bool = True


_HERE = "benchmarks.gpu_check"
GROUPS = (
    Group("reference", f"{_HERE}.network:prepare", least_s=20, limit_s=150, uses_gpu=False),
    Group("peaks", f"{_HERE}.peaks:measure_peaks", least_s=20, limit_s=45),
    Group("memories", f"{_HERE}.memories:check_memories", least_s=15, limit_s=45),
    Group("tensorrt", f"{_HERE}.runtimes:check_tensorrt", least_s=70, limit_s=240),
    Group("onnxruntime", f"{_HERE}.runtimes:check_onnxruntime", least_s=20, limit_s=90),
    Group("lanes", f"{_HERE}.runtimes:check_lanes", least_s=20, limit_s=120),
    Group("torch", f"{_HERE}.torch_networks:check_torch", least_s=20, limit_s=100),
    Group("rtx", f"{_HERE}.runtimes:check_rtx", least_s=20, limit_s=60),
    Group("trainer", f"{_HERE}.training:check_training", least_s=30, limit_s=60),
    Group("compiled", f"{_HERE}.torch_networks:check_compiled", least_s=60, limit_s=110),
)
