"""A checkout that is not installed, as on a machine where nothing can be."""

import importlib.metadata
import os
import runpy
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

import reidexport
from tests import ROOT


def test_the_version_is_pyproject_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an installed package, the version comes from the file that an installation would take it from."""

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    found = runpy.run_path(str(Path(reidexport.__file__).with_name("version.py")))["__version__"]
    assert found == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_trainer_finds_the_runtime() -> None:
    """``python -m train`` runs where only the packages that it needs are installed, without this one."""
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    command = [
        sys.executable,
        "-S",
        "-m",
        "train",
        "list",
    ]  # -S: no .pth files, as editable installations have
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "strong-baseline" in done.stdout
