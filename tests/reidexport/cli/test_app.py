"""The command line as a user meets it: exit statuses, streams and files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from reidruntime.artifact.onnx_metadata import manifest_from_onnx
from typer.main import get_command

from reidexport.cli.app import app
from reidexport.cli.onnx import _print
from reidexport.data import Dataset
from tests import ROOT
from tests.conftest import Exported, Run


def python(code: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that runs ``code``."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_version_and_help_need_no_command(run: Run) -> None:
    """``--version`` prints the version alone; no arguments print the help."""
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", run("--version").stdout)
    assert "verify" in run("--help").stdout


def test_every_command_has_help_and_a_line_in_the_documents() -> None:
    """Each command and each of its options has a help text, and docs/commands.md names the command."""
    page = (ROOT / "docs" / "commands.md").read_text()
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        assert command.help, name
        assert f"reidexport {name}" in page, name
        for option in command.params:
            assert getattr(option, "help", None) or option.name == "help", (name, option.name)


def test_a_checkpoint_becomes_a_verified_evaluated_artifact(
    run: Run, exported: Exported, drawn_dataset: Dataset, tmp_path: Path
) -> None:
    """onnx, verify and eval, as the documents show them, with JSON results and nothing left behind."""
    data = drawn_dataset.query[0].path.parents[1]
    target, gate, scores = tmp_path / "out.onnx", tmp_path / "gate.json", tmp_path / "scores.json"
    done = run("onnx", exported.checkpoint, "-o", target, "--fp16", "--flip")
    assert done.returncode == 0, done.stderr
    assert "out  f_i: float32 [batch, 512]" in done.stdout
    assert "assumed" not in done.stdout  # a checkpoint of this project tells everything
    done = run("verify", target, "--reference", exported.checkpoint, "--data", data, "--json", gate)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("PASSED\n")
    assert "limits     of fp16: cosine at least 0.999 of any image, 0.9999 in the mean" in done.stdout
    done = run("eval", target, "--data", data, "--json", scores)
    assert done.returncode == 0, done.stderr
    assert json.loads(gate.read_text())["passed"] is True
    content = json.loads(scores.read_text())
    wanted = {
        "artifact",
        "dataset",
        "metric",
        "rank1",
        "rank5",
        "rank10",
        "mAP",
        "mINP",
        "machine",
        "versions",
    }
    assert wanted <= content.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gate.json", "out.onnx", "scores.json"]


def test_what_both_sides_assume_is_said_beside_their_agreement(
    exported: Exported, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same answers as torch say nothing of what torch was told wrong, too."""
    manifest = manifest_from_onnx(exported.onnx)
    assert manifest is not None
    origins = {"stem_relu": "assumed", "size": "told", "pooling": "assumed", "weights": "assumed"}
    for is_tested, end in ((False, "; --images DIR tests them\n"), (True, "\n")):
        _print(exported.onnx, manifest.model_copy(update={"origins": origins}), is_tested=is_tested)
        words = f"  assumed the same on both sides, so not compared: stem_relu, pooling{end}"
        assert capsys.readouterr().out.endswith(words)


def test_a_failed_gate_exits_1_and_still_writes_its_json(
    run: Run, exported: Exported, tmp_path: Path
) -> None:
    """A candidate over a limit: status 1, the failure on stderr, the numbers in the file."""
    gate = tmp_path / "gate.json"
    done = run("verify", exported.fp16, "--reference", exported.onnx, "--min-cosine", "1.5", "--json", gate)
    assert done.returncode == 1
    assert "FAILED: cosine" in done.stderr
    assert "possible cause: fp16 rounds more than this network bears" in done.stderr
    assert "warning    drawn people show that the network is the same" in done.stdout
    content = json.loads(gate.read_text())
    assert content["passed"] is False
    assert content["measured_on"] == "64 drawn people"


def test_the_gate_takes_real_crops_without_labels(
    run: Run, exported: Exported, drawn_dataset: Dataset
) -> None:
    """A folder of images is compared on and named, and nothing is said of drawn people."""
    crops = drawn_dataset.query[0].path.parent
    done = run("verify", exported.onnx, "--reference", exported.checkpoint, "--images", crops)
    assert done.returncode == 0, done.stderr
    assert f"features   {len(drawn_dataset.query)} images of {crops}: cosine at least " in done.stdout
    assert "drawn people" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["onnx", "missing.pth"], "missing.pth: there is no such file"),
        (["onnx", "{checkpoint}", "--size", "256"], "expected HEIGHTxWIDTH"),
        (
            ["onnx", "{checkpoint}", "-o", "x.onnx", "--weights", "ema"],
            "--weights ema: it holds one set of weights only",
        ),
        (
            ["embed", "{checkpoint}", "{text}", "-o", "x.npz"],
            "this is a checkpoint, not an ONNX model. Export it",
        ),
        (
            ["serve", "{checkpoint}", "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"],
            "this is a checkpoint, not an ONNX model. Export it",
        ),
        (
            ["search", "{checkpoint}", "{text}"],
            "expected embeddings, in a file that ends in .npz or .parquet or .gallery or a folder of them. "
            "`reidexport embed ARTIFACT IMAGES",
        ),
        (
            ["report", ".", "-o", "a.html", "--arch", "resnet18"],
            "describe --artifact: pass --artifact and --data",
        ),
        (["onnx", "{onnx}"], "this is an ONNX file, not a checkpoint: it is exported already"),
        (["inspect", "."], "this is a folder, and no file in it ends in .pth"),
        (["onnx", "{checkpoint}", "--batch", "many"], "expected 'dynamic' or a batch size"),
        (["onnx", "{checkpoint}", "-o", "no/such/folder/x.onnx"], "cannot write there"),
        (["inspect", "{text}"], "not a checkpoint"),
        (["verify", "{onnx}", "--reference", "missing.onnx"], "missing.onnx: there is no such file"),
        (
            ["verify", "{onnx}", "--reference", "{checkpoint}", "--feature", "f_t"],
            "the candidate emits f_i, as its manifest says: leave --feature f_t out",
        ),
        (
            ["verify", "{onnx}", "--reference", "{checkpoint}", "--strict"],
            "pass --images DIR and a checkpoint",
        ),
        (["inspect", "{onnx}", "--strict"], "--strict judges what images show of a checkpoint"),
        (["eval", "{onnx}", "--data", "missing"], "missing"),
        (["verify", "{onnx}", "--reference", "{onnx}", "--data", ".", "--images", "."], "exclude each other"),
        (["verify", "{onnx}", "--reference", "{onnx}", "--same-camera", "keep"], "pass --data too"),
        (["report", ".", "-o", "a.html", "--same-camera", "keep"], "pass --artifact and --data too"),
        (["report", ".", "-o", "a.html", "--dataset", "folder"], "pass --artifact and --data too"),
    ],
)
def test_bad_input_exits_2_with_words_and_no_traceback(
    run: Run,
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    """Wrong files and options end with status 2 and one message on stderr, nothing on stdout."""
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    filled = [a.format(checkpoint=exported.checkpoint, onnx=exported.onnx, text=text) for a in arguments]
    monkeypatch.chdir(tmp_path)
    done = run(*filled)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_inspect_prints_text_and_json(run: Run, exported: Exported) -> None:
    """``inspect`` prints lines for people and one JSON object for programs."""
    assert "backbone" in run("inspect", exported.checkpoint).stdout
    assert json.loads(run("inspect", exported.onnx, "--json").stdout)["kind"] == "onnx"


def test_inspect_prints_json_of_a_file_whose_name_is_not_utf8(
    run: Run, exported: Exported, tmp_path: Path
) -> None:
    """A name that UTF-8 cannot write is escaped, and reads back as the same name."""
    odd = tmp_path / os.fsdecode(b"\xff.onnx")
    odd.write_bytes(exported.onnx.read_bytes())
    assert json.loads(run("inspect", odd, "--json").stdout)["file"] == str(odd)


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("typer", [], "cli"),
        ("jinja2", ["report", "x.json", "-o", "x.html"], "report"),
        ("tritonclient", ["bundle", "triton", "x.onnx", "-o", "models"], "triton"),
        (
            "pytriton",
            ["serve", "{onnx}", "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"],
            "serve,cpu",
        ),
    ],
)
def test_a_missing_package_exits_3_and_names_the_extra(
    package: str, arguments: list[str], extra: str, exported: Exported
) -> None:
    """Without a package that the runtime does not need, the command says what to install."""
    arguments = [each.format(onnx=exported.onnx) for each in arguments]
    done = python(
        f"import sys; sys.modules[{package!r}] = None; sys.argv[1:] = {arguments!r}; "
        "from reidexport.cli import main; main()"
    )
    assert done.returncode == 3
    assert f'pip install "reidexport[{extra}]"' in done.stderr


def test_the_runtime_imports_neither_torch_nor_reidexport() -> None:
    """The import arrow: an application that embeds reidruntime gets no training stack with it."""
    unwanted = {"torch", "reidexport", "reidgallery", "onnx", "typer"}
    done = python(f"import sys, reidruntime; print(sorted({unwanted} & set(sys.modules)))")
    assert done.stdout.strip() == "[]"


def test_importing_reidexport_does_not_wait_for_torch() -> None:
    """Names of the package are imported when used; every advertised one exists."""
    code = (
        "import sys, reidexport; assert 'torch' not in sys.modules; "
        "print(all(callable(getattr(reidexport, name)) for name in reidexport.__all__))"
    )
    done = python(code)
    assert done.stdout.strip() == "True"
