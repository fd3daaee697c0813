"""One process, or several that torchrun started: every batch is shared out by identities."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import clear_frames

import torch
from torch import Tensor, distributed
from torch.distributed import nn as collectives


@dataclass(frozen=True)
class Processes:
    """The place of this process among all."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether a flag is set in any process."""
        if self.world_size == 1:
            return flag
        flags = torch.tensor(int(flag))
        if distributed.get_backend() == "nccl":
            flags = flags.cuda()
        distributed.all_reduce(flags, distributed.ReduceOp.MAX)
        return bool(flags)

    def mean(self, value: Tensor) -> Tensor:
        """A tensor averaged over the processes."""
        if self.world_size > 1:
            distributed.all_reduce(value)
            value = value / self.world_size
        return value

    def gather(self, rows: Tensor) -> Tensor:
        """(B, …) of every process as (world_size · B, …), gradients flowing back."""
        if self.world_size == 1:
            return rows
        if rows.requires_grad:
            return torch.cat(collectives.all_gather(rows))  # type: ignore[no-untyped-call]
        parts = [torch.empty_like(rows) for _ in range(self.world_size)]
        distributed.all_gather(parts, rows)
        return torch.cat(parts)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world_size > 1:
            distributed.barrier()


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Join the group that torchrun's environment describes; alone without one.

    What the block made must be out of its reach at its end: the group's threads are joined with the last reference to
    it, and a thread that is still at work when Python ends aborts the process.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Processes()
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    except BaseException as error:
        clear_frames(error.__traceback__)
        raise
    finally:
        # DistributedDataParallel refers to the group, and to itself.
        gc.collect()
        distributed.destroy_process_group()


def default_device() -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
