"""A program: does ``exact_float32`` restore every state that torch's precision switches can be in?

Each state is made in a process of its own, since some cannot be undone. Prints how many there were.
"""

import itertools
import os
from collections.abc import Callable

import torch
from reidruntime.torch_settings import exact_float32

PARENTS = [("generic", "all"), ("cuda", "all"), ("mkldnn", "all")]
OPERATIONS = [(library, name) for library in ("cuda", "mkldnn") for name in ("matmul", "conv", "rnn")]

Setting = tuple[str, ...]
OLDER: list[Setting | None] = [
    None,
    ("matmul", "high"),
    ("matmul", "medium"),
    ("cublas", "True"),
    ("cudnn", "False"),
    ("cudnn", "True"),
]
GENERIC: list[Setting | None] = [None, ("generic", "all", "tf32")]
NEWER: list[Setting | None] = [
    None,
    ("cuda", "all", "tf32"),
    ("cuda", "matmul", "tf32"),
    ("cuda", "matmul", "none"),
    ("cuda", "conv", "tf32"),
    ("cuda", "conv", "none"),
    ("mkldnn", "all", "bf16"),
    ("mkldnn", "matmul", "bf16"),
]


def apply(setting: Setting) -> None:
    """Set one switch, of either kind."""
    if setting[0] == "matmul":
        torch.set_float32_matmul_precision(setting[1])
    elif setting[0] == "cublas":
        torch.backends.cuda.matmul.allow_tf32 = setting[1] == "True"
    elif setting[0] == "cudnn":
        torch.backends.cudnn.allow_tf32 = setting[1] == "True"
    else:
        torch._C._set_fp32_precision_setter(*setting)


def read(getter: Callable[[], object]) -> object:
    """A switch of the older kind, which torch may refuse to read."""
    try:
        return getter()
    except RuntimeError:
        return "refused"


def values() -> list[object]:
    """What can be read of all switches."""
    return [
        *(torch._C._get_fp32_precision_getter(*switch) for switch in PARENTS + OPERATIONS),
        read(torch.get_float32_matmul_precision),
        read(lambda: torch.backends.cuda.matmul.allow_tf32),
        read(lambda: torch.backends.cudnn.allow_tf32),
        torch._C._get_cublas_allow_bf16_reduced_precision_reduction(),
    ]


def state(settings: tuple[Setting, ...]) -> list[object]:
    """What can be read now, and with other parents: a switch that follows them differs from one that is set."""
    found = values()
    own = dict.fromkeys(PARENTS, "none") | {s[:2]: s[2] for s in settings if s[:2] in PARENTS}
    for parents in (*itertools.product(("none", "ieee", "tf32"), repeat=3), tuple(own.values())):
        for switch, value in zip(PARENTS, parents, strict=True):
            torch._C._set_fp32_precision_setter(*switch, value)
        found += values()
    return found


def check(settings: tuple[Setting, ...]) -> None:
    """Enter twice and leave: float32 is float32 inside, and all is as before afterwards."""
    for setting in settings:
        apply(setting)
    before = state(settings)
    with exact_float32():
        for _ in range(2):
            with exact_float32():
                pass
            assert {torch._C._get_fp32_precision_getter(*switch) for switch in OPERATIONS} == {"ieee"}
            assert torch.get_float32_matmul_precision()  # which torch never refuses
            assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    assert state(settings) == before


def main() -> None:
    """Try all combinations of the settings, the older kind first and last."""
    states = set()
    for older, generic, newer in itertools.product(OLDER, GENERIC, NEWER):
        settings = [setting for setting in (older, generic, newer) if setting]
        states |= {tuple(settings), tuple(settings[::-1])}
    for settings in states:
        if (child := os.fork()) == 0:
            check(settings)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0, settings
    print(len(states))


if __name__ == "__main__":
    main()
