"""No command replaces a file that it did not make, unless it is told to."""

from pathlib import Path

import pytest

from reidexport.cli.onnx import FileOptions, GraphChoices, _default_output
from reidexport.cli.trt import _default_output as _default_engine
from tests.conftest import Exported, Run
from train.cli import main as train


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("onnx {checkpoint} -o {output}", "a.onnx"),
        ("onnx {folder}/model.pth", "model.onnx"),
        ("onnx {folder}/model.pth --int8 --calibration {folder}", "model-int8-cpu.onnx"),
        ("trt {onnx} -o {output}", "a.engine"),
        ("trt {onnx} -o {folder}/a.engine", "a.engine.json"),
        ("embed {onnx} {folder} -o {output}", "a.npz"),
        ("embed {onnx} {folder} -o {output} --resume", "a.parquet"),
        ("store milvus:{folder}/people.db {output}", "people.parquet"),
        ("report {folder} -o {output}", "report.html"),
        ("parity {checkpoint} {onnx} --data {folder} --json {output}", "parity.json"),
        ("search {folder}/people.gallery {folder} --sheet {output}", "photo.png"),
        ("bundle deepstream {onnx} -o {folder}", "tracker_reid.yml"),
    ],
)
def test_an_existing_file_is_refused_before_the_work(
    run: Run, exported: Exported, tmp_path: Path, command: str, output: str
) -> None:
    """Every command that writes a file refuses one that exists, names it and the way out, and leaves it as it was."""
    path = tmp_path / output
    path.write_bytes(b'{"kind": "precious"}')
    paths = {"checkpoint": exported.checkpoint, "onnx": exported.onnx, "folder": tmp_path, "output": path}
    done = run(*command.format(**paths).split())
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path}: exists. Pass --force to replace it, or choose another path." in done.stderr
    assert [(each, each.read_bytes()) for each in tmp_path.iterdir()] == [(path, b'{"kind": "precious"}')]


def test_force_replaces(run: Run, exported: Exported, tmp_path: Path) -> None:
    """With --force the same command writes its file over the existing one."""
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")
    done = run("onnx", exported.checkpoint, "-o", path, "--force")
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() != b"old"


def test_a_joined_checkpoint_replaces_none(tmp_path: Path) -> None:
    """The trainer's join refuses an existing checkpoint, too."""
    path = tmp_path / "best.pth"
    path.write_bytes(b"old")
    with pytest.raises(SystemExit, match="2"):
        train(["join", str(tmp_path), "-o", str(path)])
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("content", [b"\x08\x08", b"[1]", b'{"name": "package.json"}'])
def test_json_replaces_results_only(run: Run, tmp_path: Path, content: bytes) -> None:
    """--json refuses a file that no command of this project wrote, before the work."""
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    done = run("doctor", "--json", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path}: exists, and is not the result of a command. Choose another --json FILE." in done.stderr
    assert path.read_bytes() == content


def test_default_names_tell_what_a_file_is() -> None:
    """Whatever is not the default of a network or an engine is in the default name of its file."""
    usual, several = GraphChoices(), GraphChoices("f_t", flip=True)
    raw = GraphChoices(normalize=True, input="float32")
    name, dynamic = _default_output, FileOptions()
    assert name(Path("a/b.pth"), usual, dynamic, "fp32", "cpu") == Path("a/b.onnx")
    assert name(Path("b.pth.tar-60"), usual, dynamic, "fp16", "cpu") == Path("b.pth.tar-60-fp16.onnx")
    assert name(Path("b.pth"), usual, dynamic, "int8", "cpu") == Path("b-int8-cpu.onnx")
    assert name(Path("b.pth"), usual, dynamic, "int8", "tensorrt") == Path("b-int8-tensorrt.onnx")
    assert name(Path("b.pt"), several, FileOptions("8", opset=13), "fp16", "cpu") == Path(
        "b-f_t-flip-batch8-opset13-fp16.onnx"
    )
    assert name(Path("b.pth"), raw, dynamic, "fp32", "cpu") == Path("b-normalized-float32.onnx")
    assert _default_engine(Path("b.onnx"), None, "tensorrt") == Path("b.engine")
    assert _default_engine(Path("b.onnx"), "fp16", "rtx") == Path("b-fp16-rtx.engine")
    assert _default_engine(Path("b-fp16.onnx"), "fp16", "tensorrt") == Path("b-fp16.engine")
    assert _default_engine(Path("b-int8-tensorrt.onnx"), "int8", "tensorrt") == Path("b-int8-tensorrt.engine")
