"""Saving in the background: one at a time, nothing lost, copies that training does not touch."""

import threading
import time
from collections.abc import Sequence

import pytest
import torch

from reidexport.errors import InputError, TrainingError
from train.saving import Saver, Snapshot, finished_at_the_end, snapshot

NOW = 0.0
NEVER = 1e9


def state(epoch: int) -> Snapshot:
    """A run after an epoch."""
    return snapshot({"weight": torch.full((2,), float(epoch))}, {}, {"epoch": epoch}, torch.device("cpu"))


class Disk:
    """Notes what is written; from the epoch ``full_from`` on it is full."""

    def __init__(self, full_from: int = 99) -> None:
        self.epochs: list[int] = []
        self.full_from, self.busy = full_from, threading.Lock()

    def write(self, state: Snapshot, names: Sequence[str]) -> None:
        """Take a moment, alone."""
        assert self.busy.acquire(blocking=False), "two writes at once"
        time.sleep(0.01)
        self.busy.release()
        if state.progress["epoch"] >= self.full_from:
            raise InputError("No space left on device")
        self.epochs.append(state.progress["epoch"])


def test_writes_are_one_after_the_other() -> None:
    """Whatever is requested is written, in order, and never two at once."""
    disk = Disk()
    with finished_at_the_end(Saver(disk.write, NOW)) as saver:
        for epoch in range(5):
            saver.save(state(epoch))
    assert disk.epochs == [0, 1, 2, 3, 4]


def test_saving_is_due_by_time_and_never_while_writing() -> None:
    """Not before the time has passed since the last save, and not while that is under way."""
    disk = Disk()
    with finished_at_the_end(Saver(disk.write, NEVER)) as saver:
        assert not saver.is_due
    with finished_at_the_end(Saver(disk.write, NOW)) as saver:
        assert saver.is_due
        saver.save(state(1))
        assert not saver.is_due
        deadline = time.monotonic() + 30
        while not saver.is_due and time.monotonic() < deadline:
            time.sleep(0.005)
        assert saver.is_due


@pytest.mark.parametrize("fails", [False, True])
def test_what_was_kept_is_written_when_the_run_ends(fails: bool) -> None:
    """The last finished epoch, after an error too; an older one than the last save is not."""
    disk = Disk()
    try:
        with finished_at_the_end(Saver(disk.write, NEVER)) as saver:
            saver.keep(state(1))
            saver.save(state(2))
            saver.keep(state(3))
            saver.keep(state(4))
            if fails:
                raise TrainingError("diverged")
    except TrainingError as error:
        assert not hasattr(error, "__notes__")
    assert disk.epochs == [2, 4]


def test_an_error_of_the_thread_is_raised_by_the_next_call() -> None:
    """Where the training loop asks next: whether saving is due, the next save, or the end."""
    for ask in (lambda saver: saver.is_due, lambda saver: saver.save(state(2)), lambda saver: saver.finish()):
        disk = Disk(full_from=1)
        with pytest.raises(InputError, match="No space left"):
            with finished_at_the_end(Saver(disk.write, NEVER)) as saver:
                saver.save(state(1))
                time.sleep(0.1)
                ask(saver)
                raise AssertionError("the error was lost")
        assert disk.epochs == []


def test_an_error_while_another_ends_the_run_becomes_its_note() -> None:
    """Divergence on a full disk: both are reported."""
    with pytest.raises(TrainingError, match="diverged") as raised:
        with finished_at_the_end(Saver(Disk(full_from=1).write, NEVER)) as saver:
            saver.keep(state(1))
            raise TrainingError("diverged")
    assert raised.value.__notes__ == ["Nor could the last finished epoch be saved: No space left on device"]


def test_a_snapshot_is_a_copy() -> None:
    """Tensors at any depth: later changes do not reach it, and channels-last stays channels-last."""
    weight = torch.ones(1, 3, 4, 4).to(memory_format=torch.channels_last)
    moment, step = torch.ones(3), torch.tensor(1.0)
    learner = {"optimizer": {"state": {0: {"m": moment, "step": step}}, "param_groups": [{"params": [0]}]}}
    moment_copy = snapshot({"weight": weight}, learner, {"epoch": 1}, torch.device("cpu"))
    for each in (weight, moment, step):
        each.zero_()
    copied = moment_copy.on_cpu()
    assert bool((copied.weights["weight"] == 1).all())
    assert copied.weights["weight"].is_contiguous(memory_format=torch.channels_last)
    assert copied.learner["optimizer"]["state"][0]["m"].tolist() == [1, 1, 1]
    assert float(copied.learner["optimizer"]["state"][0]["step"]) == 1
    assert copied.learner["optimizer"]["param_groups"] == [{"params": [0]}]
