"""What is installed: the wheel holds all of the three packages, their data files and their types, and nothing else."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tests import ROOT

PACKAGES = {
    "reidexport": ROOT / "reidexport",
    "reidruntime": ROOT / "engines/python/reidruntime",
    "reidgallery": ROOT / "engines/python/reidgallery",
}


def build(source: Path, target: str, out: Path) -> Path:
    """The sdist or wheel that hatchling makes of a source tree."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(out)],
        cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.iterdir()
    return built


def names_in(wheel: Path) -> set[str]:
    """The files of a wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def expected_names() -> set[str]:
    """Every file of the packages, as git would see them."""
    return {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_packages_and_nothing_else(tmp_path: Path) -> None:
    """Every module, page and py.typed of the three packages is in the wheel; tests, trainer and benchmarks are not."""
    found = names_in(build(ROOT, "wheel", tmp_path))
    assert found == expected_names()
    assert {f"{package}/py.typed" for package in PACKAGES} <= found


def test_the_sdist_makes_the_same_wheel(tmp_path: Path) -> None:
    """A wheel that is built from the source distribution holds what one from the checkout does."""
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("reidexport-*")
    assert names_in(build(unpacked, "wheel", tmp_path / "wheel")) == expected_names()
