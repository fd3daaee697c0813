"""``make gpu-check`` itself: tiny files of checks in place of the real ones, and what the real ones judge by."""

import json
import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu import __main__ as runner
from tests.gpu.conftest import Judge

HEAD = "from tests.gpu.conftest import *\nimport os, pytest, time\n"
PASSES = "def test_parity(): pass\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs files of checks with those contents on the device "cpu"; returns the exit status and the JSON."""

    def call(files: dict[str, str], *arguments: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr(runner, "CHECKS", tmp_path)
        monkeypatch.setattr(runner, "LIMITS_S", {each: 1.25 if each == "hangs" else 60.0 for each in files})
        for name, content in (("conftest", ""), *((f"test_{name}", files[name]) for name in files)):
            (tmp_path / f"{name}.py").write_text(HEAD + content)
        status = runner.main(["--device=cpu", f"--json={tmp_path / 'found.json'}", *arguments])
        return status, json.loads((tmp_path / "found.json").read_text())

    return call


def test_everything_passes(run: Any) -> None:
    """Exit status 0; the JSON has every check, what it found or why it was skipped, the machine and the versions."""
    measures = "def test_float32(judge): judge.record('size', float('nan')); judge.within(1.0, error=0.5)\n"
    skips = "def test_it(): pytest.skip('pycuda is not installed')\n"
    status, found = run({"reference": measures, "torch": PASSES + skips})
    assert (status, found["passed"], found["failures"], found["not_run"]) == (0, True, [], [])
    assert found["machine"]["cores"] >= 1 and "numpy" in found["versions"]
    first, second, third = found["checks"]
    assert first["measured"] == {"size": None, "error": 0.5, "limit": 1.0}
    assert (second["group"], second["check"], second["outcome"]) == ("torch", "parity", "passed")
    assert (third["check"], third["outcome"], third["reason"]) == ("it", "skipped", "pycuda is not installed")


def test_a_file_that_does_not_end_well_fails_alone(run: Any) -> None:
    """What passed before counts, the check under way and the file have failed, and the next file is run."""
    files = {
        "fails": (PASSES + "def test_it(): assert 1 == 2, 'too far'", "AssertionError: too far\nassert 1 == 2"),
        "hangs": (PASSES + "def test_it(): time.sleep(1000)", "did not end within 5 s"),
        "crashes": (PASSES + "def test_it(): os.kill(os.getpid(), 11)", "its process ended with status -11"),
        "exits": (PASSES + "def test_it(): os._exit(0)", "its process ended with status 0"),
        "breaks": (PASSES + "import no_such_module", "its process ended with status 2"),
        "empty": ("", "its process ended with status 5"),
        "reference": (PASSES, ""),
    }  # fmt: skip
    status, found = run({name: content for name, (content, _) in files.items()})
    assert (status, found["failures"][0]) == (1, "9 failed")
    for name, (_, reason) in files.items():
        checks = [each for each in found["checks"] if each["group"] == name]
        assert checks[-1]["reason"] == reason
        assert len(checks) == 1 or [each["outcome"] for each in checks[:2]] == ["passed", "failed"]


def test_skipping_does_not_pass(run: Any) -> None:
    """The reference and a GPU path must pass, something of each chosen file, and nothing be left out for time."""
    skips = "def test_parity(): pytest.skip('not here')\n"
    assert run({"reference": skips, "torch": PASSES})[1]["failures"] == ["the float32 reference did not pass"]
    files = {"reference": PASSES, "torch": skips, "gallery": PASSES}
    assert run(files)[1]["failures"] == ["no GPU path passed, of torch, onnxruntime, tensorrt"]
    assert run(files, "--only=torch")[1]["failures"] == ["nothing passed of torch"]
    assert run(files, "--only=gallery")[0] == 0
    status, found = run(files, "--limit=0")
    assert (status, found["failures"][-1]) == (1, "no time was left for reference, torch, gallery")


def test_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, and what is wrong."""
    wrong = {"--only=galery": "invalid choice: 'galery'", "--json=no/file": "--json: there is no folder no"}
    for argument, words in wrong.items():
        with pytest.raises(SystemExit, match="2"):
            runner.main([argument])
        assert words in capsys.readouterr().err


def test_missing_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 3, the packages and the GPU in one line."""
    monkeypatch.setattr(runner, "NEEDED", ("numpy", "no_such_package"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert runner.main([]) == 3
    line = capsys.readouterr().err
    assert re.fullmatch(
        r"gpu-check needs no_such_package \(install.*\); an NVIDIA GPU, and torch .* finds none.*\n", line
    )


def test_the_judge() -> None:
    """Not a number is above every limit, a last bit is a difference, and 64 KiB kept by each call are a leak."""
    judge, ones, kept = Judge(lambda name, value: None), np.ones((2, 2), np.float32), []
    judge.same_bits(ones, ones, "ones")
    with pytest.raises(AssertionError, match="error is nan, allowed 1"):
        judge.within(1.0, error=float("nan"))
    with pytest.raises(AssertionError, match="ones: off by "):
        judge.same_bits(np.nextafter(ones, 2), ones, "ones")

    def leak() -> None:
        kept.append(mmap.mmap(-1, 2**16))  # pages of its own: the heap may have freed ones left
        kept[-1].write(bytes([1]) * 2**16)

    with pytest.raises(AssertionError, match=r"host_growth_mib is 6\d\.\d, allowed 32"):
        judge.steady_memory(leak, 1000)
    judge.steady_memory(lambda: bytes(1000), 1000)


@pytest.mark.gpu
def test_everything_passes_on_a_gpu() -> None:
    """The real checks, on a tiny network."""
    assert runner.main(["--quick"]) == 0
