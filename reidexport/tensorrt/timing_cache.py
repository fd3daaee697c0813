"""TensorRT's timing cache: what the builder measured once on a GPU is not measured again.

One file per TensorRT version and GPU. Several processes may build at the same time: each merges what it learned into
the file, under a lock, and replaces the file whole.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reidruntime.tensorrt_library import Gpu

from reidexport.errors import InputError
from reidexport.files import replaced_when_whole


def default_timing_cache(tensorrt_version: str, gpu: Gpu) -> Path:
    """``~/.cache/reidexport/timing/tensorrt-11.4.0-nvidia-h100-9.0.cache``, under XDG_CACHE_HOME where that is set."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    gpu_name = re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-")
    name = f"tensorrt-{tensorrt_version}-{gpu_name}-{gpu.compute_capability}.cache"
    return home / "reidexport" / "timing" / name


@contextmanager
def timing_cache(path: Path, config: Any, log: Callable[[str], None], *, is_named: bool) -> Iterator[None]:
    """Let the builder know within the block what earlier builds measured, and merge what it measured into the file.

    The lock is a file beside it, which stays; what is there to read is always whole.

    Args:
        path: of the cache, which need not exist.
        config: the builder's configuration.
        log: called with a line where the cache is started anew.
        is_named: the user chose the file, which may be anything, and is not replaced unless it is a timing cache.

    Raises:
        InputError: the named file holds something else, or a timing cache of another version or GPU.
    """
    content = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(content)  # None if damaged
    if cache is None or not config.set_timing_cache(cache, False):
        if is_named and content:
            raise InputError(
                f"--timing-cache {path} is not a timing cache of this TensorRT and GPU, and would be replaced; "
                "choose another file, or remove this one."
            )
        log(f"{path}: TensorRT does not take this timing cache; starting with an empty one")
        config.set_timing_cache(config.create_timing_cache(b""), False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("a") as lock:
        yield
        learned = config.get_timing_cache()
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = config.create_timing_cache(path.read_bytes()) if path.is_file() else None
        if known is not None:
            learned.combine(known, False)  # what is of another version or device is dropped
        with replaced_when_whole(path) as temporary:
            temporary.write_bytes(learned.serialize())
