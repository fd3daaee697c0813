"""torch's own switches, set for a while, in a process that has other settings.

Since torch 2.9 a tree of switches decides in which precision float32 is multiplied: one for everything, one for each
library, one for each kind of operation. One that is ``"none"`` follows its parent, and reading it gives its parent's
value, so reading and writing back would tear it off. Here the parents are set to ``"ieee"`` first: whatever still
reads as something else then was set itself, and only that is saved, set and restored.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

_SWITCHES = (  # parents first
    ("generic", "all"),
    ("cuda", "all"),
    ("mkldnn", "all"),
    *((library, operation) for library in ("cuda", "mkldnn") for operation in ("matmul", "conv", "rnn")),
)

_lock = Lock()
_num_users = 0
_undo = ExitStack()


@contextmanager
def fastest_convolutions() -> Iterator[None]:
    """Let cuDNN try its kernels for each new shape and keep the fastest; by one thread of the process at a time."""
    import torch

    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def exact_float32() -> Iterator[None]:
    """Float32 products and convolutions of torch are computed in float32, whatever the application has set.

    No TF32 or bfloat16 inside, on GPUs and CPUs, and no autocast in this thread; products of bfloat16 matrices are
    summed in float32. The switches are those of the whole process: the first thread to enter sets them, the last one to
    leave restores what the first one found. What others set in the meantime is lost.

    Inside, ``torch.backends.cudnn.allow_tf32`` cannot be read: torch raises RuntimeError where it and the newer
    switches differ. ``torch.backends.cudnn.conv.fp32_precision`` can.
    """
    import torch

    global _num_users, _undo
    with _lock:
        if _num_users == 0:
            _undo = _set_exact()
        _num_users += 1
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        with _lock:
            _num_users -= 1
            if _num_users == 0:
                _undo.close()


def _set_exact() -> ExitStack:
    """Set the switches; closing what this returns restores them."""
    import torch

    undo, changed = ExitStack(), set()
    for switch in _SWITCHES:
        precision = torch._C._get_fp32_precision_getter(*switch)
        if precision != "ieee":
            changed.add(switch)
            undo.callback(torch._C._set_fp32_precision_setter, *switch, precision)
            torch._C._set_fp32_precision_setter(*switch, "ieee")

    # The older switches are torch's own record beside these, and compiled code of other threads reads it; torch raises
    # where the two differ. They are left alone where they differed before.
    older = torch.get_float32_matmul_precision()
    if older == "high" and ("cuda", "matmul") in changed:
        undo.callback(torch._C._set_cublas_allow_tf32, True)
        torch._C._set_cublas_allow_tf32(False)
    elif older == "medium" and {("cuda", "matmul"), ("mkldnn", "matmul")} <= changed:
        undo.callback(torch.set_float32_matmul_precision, older)
        torch.set_float32_matmul_precision("highest")

    matmul = torch.backends.cuda.matmul
    reduction = (
        matmul.allow_bf16_reduced_precision_reduction,
        matmul.allow_bf16_reduced_precision_reduction_split_k,
    )
    undo.callback(setattr, matmul, "allow_bf16_reduced_precision_reduction", reduction)
    matmul.allow_bf16_reduced_precision_reduction = False, reduction[1]
    return undo
