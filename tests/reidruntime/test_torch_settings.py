"""Float32 that is float32: torch's switches inside and after, over what an application can have set."""

import subprocess
import sys
import threading

import pytest
import torch
from reidruntime.torch_settings import exact_float32

from tests import ROOT


def test_every_state_of_the_switches_is_restored() -> None:
    """Over all combinations of older and newer settings, float32 inside is float32, and afterwards nothing differs."""
    program = [sys.executable, "-W", "error", str(ROOT / "tests/standins/precision_states.py")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


@pytest.mark.parametrize("precision", ["high", "medium", "allow_tf32"])
def test_the_older_switches_agree_inside(precision: str, precision_switches: None) -> None:
    """What compiled code of other threads reads is never refused, and is what it was afterwards."""
    if precision == "allow_tf32":
        torch.backends.cuda.matmul.allow_tf32 = True
    else:
        torch.set_float32_matmul_precision(precision)
    before = torch.get_float32_matmul_precision()
    with exact_float32():
        assert torch.backends.cuda.matmul.allow_tf32 is False
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.backends.cuda.matmul.allow_tf32 is True
    assert torch.get_float32_matmul_precision() == before


def test_the_last_thread_to_leave_restores_the_switches(precision_switches: None) -> None:
    """A thread that enters second stays exact after the first has left, and TF32 is back once both have."""
    torch.set_float32_matmul_precision("high")
    has_entered, may_leave = threading.Event(), threading.Event()
    seen = []

    def second() -> None:
        with exact_float32():
            has_entered.set()
            may_leave.wait(10)
            seen.append(torch.backends.cuda.matmul.fp32_precision)

    thread = threading.Thread(target=second)
    with exact_float32():
        thread.start()
        assert has_entered.wait(10)
    may_leave.set()
    thread.join()
    assert seen == ["ieee"]
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"


def test_autocast_is_off_inside_and_an_error_restores_it(precision_switches: None) -> None:
    """Products of float32 stay float32 under autocast; an exception inside leaves no switch behind."""
    torch.set_float32_matmul_precision("medium")
    ones = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with pytest.raises(ZeroDivisionError), exact_float32():
            assert (ones @ ones).dtype == torch.float32
            raise ZeroDivisionError
        assert (ones @ ones).dtype == torch.bfloat16
    assert torch.get_float32_matmul_precision() == "medium"
