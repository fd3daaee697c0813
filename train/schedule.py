"""The learning rate of every epoch (paper, eq. 1)."""

from train.recipe import Schedule

_CODE_WARMUP_START = 0.01  # WARMUP_FACTOR of the authors' configurations


def learning_rate(epoch: int, schedule: Schedule, *, warmup: bool) -> float:
    """The learning rate of an epoch: linear warm-up, then steps down (paper, 3.1 and eq. 1).

    The authors' code starts the line at 0.01 of the base rate in "epoch 0" instead of at 0, and makes each step one
    epoch earlier, in epochs 40 and 70 instead of after them; ``schedule.follows`` chooses.

    Args:
        epoch: t, counted from 1.
        schedule: base rate, warm-up and decays.
        warmup: whether the trick is on.
    """
    paper = schedule.follows == "paper"
    num_decays = sum(epoch > decay if paper else epoch >= decay for decay in schedule.decay_epochs)
    rate = schedule.learning_rate * schedule.decay_factor**num_decays
    if not warmup or epoch >= schedule.warmup_epochs:
        return rate
    done = epoch / schedule.warmup_epochs
    return rate * (done if paper else _CODE_WARMUP_START * (1 - done) + done)
