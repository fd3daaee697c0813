"""The learning rate of every epoch, as the paper and as the authors' code have it."""

import pytest

from train.recipe import Schedule
from train.schedule import learning_rate


def equation_1(t: int) -> float:
    """The paper's equation (1), letter by letter."""
    if t <= 10:
        return 3.5e-5 * t / 10 * 10
    if t <= 40:
        return 3.5e-4
    if t <= 70:
        return 3.5e-5
    return 3.5e-6


@pytest.mark.parametrize("epoch", range(1, 121))
def test_the_paper_s_schedule_is_equation_1(epoch: int) -> None:
    """At every epoch from 1 to 120."""
    schedule = Schedule(follows="paper")
    assert learning_rate(epoch, schedule, warmup=True) == pytest.approx(equation_1(epoch), rel=1e-12)


@pytest.mark.parametrize("epoch", range(1, 121))
def test_the_code_s_schedule_is_its_warmup_multi_step(epoch: int) -> None:
    """At every epoch from 1 to 120: the factor of WarmupMultiStepLR, with last_epoch counting from 1."""
    factor = 0.01 * (1 - epoch / 10) + epoch / 10 if epoch < 10 else 1.0
    expected = 3.5e-4 * factor * 0.1 ** sum(epoch >= step for step in (40, 70))
    assert learning_rate(epoch, Schedule(), warmup=True) == pytest.approx(expected, rel=1e-12)


def test_without_warm_up_the_rate_starts_whole() -> None:
    """The standard baseline trains its first epoch at the base rate, and falls as the other."""
    assert learning_rate(1, Schedule(), warmup=False) == 3.5e-4
    assert learning_rate(71, Schedule(follows="paper"), warmup=False) == pytest.approx(3.5e-6)


def test_the_two_differ_by_little() -> None:
    """In the warm-up by less than a tenth, and by one epoch at each step down."""
    code, paper = (
        [learning_rate(t, Schedule(follows=f), warmup=True) for t in range(1, 121)] for f in ("code", "paper")
    )
    different = [t for t in range(1, 121) if code[t - 1] != pytest.approx(paper[t - 1])]
    assert different == [*range(1, 10), 40, 70]
    assert max(code[t - 1] / paper[t - 1] for t in range(1, 10)) < 1.1
