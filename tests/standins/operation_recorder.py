"""A stand-in for a CUDA graph on a CPU: torch's operations recorded with their tensors and numbers, and run again."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class OperationRecorder:
    """A :class:`train.whole_step.Recorder`: as in a CUDA graph, numbers are baked in, and memory is used again.

    Attributes:
        num_recorded: operations of the last recording.
    """

    num_recorded = 0

    def run(self, work: Callable[[], Tensor]) -> Tensor:
        """Run the work."""
        return work()

    def record(self, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Record the work; what it changes is put back, since a capture does not run anything."""
        with _Recording() as recording:
            answer = work()
        with torch.no_grad():
            for tensor, before in recording.inputs.values():
                tensor.copy_(before)
        self.num_recorded = len(recording.calls)

        def replay() -> Tensor:
            with torch.no_grad():
                for call, results in recording.calls:
                    for old, new in zip(results, _tensors(call()), strict=True):
                        if old.data_ptr() != new.data_ptr():
                            old.copy_(new)
            return answer.clone()

        return replay


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[[], Any], list[Tensor]]] = []
        self.inputs: dict[int, tuple[Tensor, Tensor]] = {}
        self._made: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        assert func is not torch.ops.aten._local_scalar_dense.default, "a GPU would have to be waited for"
        arguments = _tensors((args, kwargs))
        for (
            tensor
        ) in arguments:  # of outside, seen for the first time: it may be changed, whatever the schema says
            if tensor.untyped_storage().data_ptr() not in self._made and id(tensor) not in self.inputs:
                self.inputs[id(tensor)] = (tensor, tensor.detach().clone())
        result = func(*args, **kwargs)
        results = [tensor.detach() for tensor in _tensors(result)]
        before = {tensor.untyped_storage().data_ptr() for tensor in arguments}
        self._made |= {tensor.untyped_storage().data_ptr() for tensor in results} - before
        self.calls.append((lambda: func(*args, **kwargs), results))
        return result


def _tensors(value: Any) -> list[Tensor]:
    leaves: Iterable[Any] = tree_leaves(value)
    return [each for each in leaves if isinstance(each, Tensor)]
