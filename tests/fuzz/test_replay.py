"""What the fuzzer has found, read again: every input gives an answer or an error of the project's own tree."""

import time
from pathlib import Path

import pytest

from tests.fuzz.inputs import inputs_of
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS, checksums_off, try_input
from tests.standins.pickles import little_memory


@pytest.mark.parametrize("target", TARGETS)
def test_committed_inputs(target: str, tmp_path: Path) -> None:
    """The corpus, and every input that once was a finding, keep to the contract, in 10 seconds and 2 GiB."""
    with checksums_off(target), little_memory(2048):
        for name, data in inputs_of(target).items():
            began = time.process_time()
            try_input(target, data, tmp_path)
            assert time.process_time() - began < 10, name


def test_whole_files_are_read(tmp_path: Path) -> None:
    """What the fuzzer begins with comes through every reader: the targets call what they are to call."""
    for target, files in seeds(tmp_path).items():
        if not target.endswith("_program") and target != "record":
            assert any(try_input(target, data, tmp_path) for data in files), target
