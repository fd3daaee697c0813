"""CPU time that other processes used."""

import os
import subprocess
import sys
import time

import pytest

from reidexport.cpu_share import CpuUse, cpu_use, disturbance, others_share
from reidexport.machine import machine_info
from tests.standins.benchmark_runs import BURN


def test_own_work_is_not_anothers() -> None:
    """A child's CPU time counts as ours, while it runs and when it has ended."""
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    before = cpu_use()
    child = subprocess.Popen([sys.executable, "-c", BURN.format(seconds=0.6)])
    time.sleep(0.4)
    during = cpu_use()
    child.wait()
    after = cpu_use()
    assert before and during and after
    assert before.own < during.own < after.own
    assert after.own - before.own >= 0.2 * ticks_per_s


@pytest.mark.parametrize(("others", "share"), [(0, 0.0), (4, 0.0), (104, 0.5), (1000, 1.0)])
def test_the_share_of_others(others: int, share: float) -> None:
    """One second of two CPUs is 200 ticks of 10 ms: what is not ours is others', but for the error of counting."""
    scale = os.sysconf("SC_CLK_TCK") / 100
    before = CpuUse(everyones=1000, own=100, cpus=2, at_s=5.0)
    after = CpuUse(1000 + int(scale * (90 + others)), 100 + int(scale * 90), 2, 6.0)
    assert others_share(before, after) == pytest.approx(share, abs=0.02)
    assert others_share(None, after) is None


def test_load_counts_only_where_cpu_time_is_unknown() -> None:
    """A high load before the run, which may be the run's own, does not disturb a row whose share is known."""
    machine = machine_info()
    machine["load_average"], machine["cores"] = 1.9, 2
    assert disturbance(0.05, machine) is None
    assert disturbance(0.25, machine) == "other processes used 25% of the CPU time"
    assert disturbance(None, machine) == "the load was 1.9 before the first measurement"
    machine["load_average"] = 0.1
    assert disturbance(None, machine) is None
