"""The arrows between packages and folders, which ``make check`` reads from ``pyproject.toml``, catch what runs up."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

PLANTED = {
    "reidexport/metrics/distances.py": ("reidexport.evaluation.scoring", "reidexport, from the commands"),
    "reidexport/embed/table.py": ("reidexport.embed.cluster", "Embedding: what runs on a cluster"),
    "reidexport/cli/app.py": ("train.recipe", "Packages use only those below them"),
    "engines/python/reidgallery/rows.py": ("reidruntime.artifact.manifest", "A gallery knows nothing of"),
    "engines/python/reidruntime/backends/openvino.py": ("reidruntime.session", "What a session is made of"),
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter prints of a copy of the code with an import planted in each of some files."""
    copy = tmp_path_factory.mktemp("planted")
    for folder in ("reidexport", "engines/python", "train", "benchmarks", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for file, (imported, _) in PLANTED.items():
        with (copy / file).open("a") as code:
            code.write(f"\nimport {imported}  # noqa\n")
    program = str(Path(sys.executable).with_name("lint-imports"))
    environment = os.environ | {"PYTHONPATH": f"{copy}:{copy / 'engines/python'}", "COLUMNS": "300"}
    done = subprocess.run(
        [program, "--no-cache"], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("file", PLANTED)
def test_a_planted_import_is_caught(report: str, file: str) -> None:
    """An import against the arrows breaks the contract that draws them, and is named with its line."""
    imported, contract = PLANTED[file]
    assert any(line.startswith(contract) and line.endswith("BROKEN") for line in report.splitlines())
    importer = file.removeprefix("engines/python/").removesuffix(".py").replace("/", ".")
    assert f"{importer} -> {imported}" in report
