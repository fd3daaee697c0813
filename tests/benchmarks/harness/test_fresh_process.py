"""Measurements in fresh processes."""

import subprocess

import pytest

from benchmarks.harness.fresh_process import peak_mib_of


def test_a_failed_child_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    """What a fresh process says on stderr before it fails is shown."""
    with pytest.raises(subprocess.CalledProcessError):
        peak_mib_of("raise ValueError('what went wrong')")
    assert "ValueError: what went wrong" in capfd.readouterr().err
