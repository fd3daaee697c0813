"""The benchmark reports what it measured, and with what."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from reidruntime import open_session
from typer.testing import CliRunner

from reidexport.cli.bench import bench
from reidexport.errors import InputError
from reidexport.evaluation import timing
from reidexport.evaluation.timing import bench_session
from reidexport.machine import cpu_mhz, cpu_model, machine_info, package_versions
from tests.standins.camera_profiles import small_profile, write_profile
from tests.standins.runtime_models import write_artifact

CLI = typer.Typer()
CLI.command()(bench)


def test_every_batch_size_is_measured(tmp_path: Path) -> None:
    """Percentiles are ordered, at least five runs each, in the given order."""
    with open_session(write_artifact(tmp_path / "a.onnx")) as session:
        report = bench_session(session, (4, 1), seconds_per_batch=0.02)
    assert [row.batch_size for row in report.batches] == [4, 1]
    for row in report.batches:
        assert row.repeats >= 5
        assert 0 < row.p50_ms <= row.p90_ms <= row.p99_ms
        assert row.images_per_s > 0
    assert report.end_to_end is None
    assert report.session.endswith(session.description)


def test_a_camera_profile_is_part_of_what_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every batch and every file comes with a camera of the profile."""
    monkeypatch.setattr(timing, "disturbance", lambda *_: None)
    artifact, image = write_artifact(tmp_path / "a.onnx"), tmp_path / "street.png"
    Image.fromarray(np.zeros((20, 10, 3), np.uint8)).save(image)
    with open_session(artifact) as plain:
        dim = plain.manifest.architecture.feature_dim
    cameras = write_profile(small_profile(artifact, dim), artifact)
    with open_session(artifact, cameras=cameras) as session:
        report = bench_session(session, (1, 3), seconds_per_batch=0.01, image_paths=[str(image)])
    assert [row.batch_size for row in report.batches] == [1, 3]
    assert report.end_to_end is not None
    assert report.end_to_end.num_images == 1


def test_files_are_measured_beside_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """End to end counts every file and gives its share of the network's speed; on a busy machine, a warning instead."""
    monkeypatch.setattr(timing, "disturbance", lambda *_: None)
    paths = [str(tmp_path / f"{index}.png") for index in range(5)]
    for path in paths:
        Image.fromarray(np.zeros((20, 10, 3), np.uint8)).save(path)
    with open_session(write_artifact(tmp_path / "a.onnx")) as session:
        whole = bench_session(session, (2,), seconds_per_batch=0.02, image_paths=paths).end_to_end
        monkeypatch.setattr(timing, "disturbance", lambda *_: "others used it")
        busy = bench_session(session, (2,), seconds_per_batch=0.02, image_paths=paths)
    assert whole is not None
    assert (whole.num_images, whole.batch_size) == (5, 2)
    assert whole.images_per_s == pytest.approx(5 / whole.seconds)
    assert whole.share_of_net == pytest.approx(whole.images_per_s / whole.net_images_per_s)
    assert busy.end_to_end is None
    assert re.fullmatch(
        r"Not compared with the network alone: \d+\.\d images/s from 5 files\.", busy.warnings[1]
    )


def test_a_busy_machine_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too much CPU time of other processes makes the figures doubtful; a little does not."""
    with open_session(write_artifact(tmp_path / "a.onnx")) as session:
        monkeypatch.setattr(timing, "others_share", lambda *_: 0.4)
        report = bench_session(session, (1,), seconds_per_batch=0.01)
        assert report.warnings == ("The machine was busy: other processes used 40% of the CPU time.",)
        monkeypatch.setattr(timing, "others_share", lambda *_: 0.05)
        assert bench_session(session, (1,), seconds_per_batch=0.01).warnings == ()


@pytest.mark.parametrize(("sizes", "seconds"), [((), 1.0), ((0,), 1.0), ((1,), 0.0)])
def test_silly_numbers_are_refused(tmp_path: Path, sizes: tuple[int, ...], seconds: float) -> None:
    """No batch, a batch of nothing, and no time."""
    with (
        open_session(write_artifact(tmp_path / "a.onnx")) as session,
        pytest.raises(InputError, match="Expected positive sizes and seconds"),
    ):
        bench_session(session, sizes, seconds_per_batch=seconds)


def test_machine_and_versions_are_stated() -> None:
    """CPU, clock, cores and the versions that decide a result are recorded, in JSON, too."""
    machine, versions = machine_info(), package_versions()
    assert machine["cpu"]
    assert machine["cpu_mhz"] is None or machine["cpu_mhz"] > 100
    assert machine["governor"] is None or machine["governor"].isidentifier()
    assert machine["cores"] >= 1
    assert {"python", "numpy", "reidexport"} <= versions.keys()
    json.dumps([machine, versions])


def test_the_clock_is_that_of_the_fastest_core() -> None:
    """Cores that sleep show low clocks; on systems that state none, it is unknown, as is the model."""
    text = "model name\t: A CPU\ncpu MHz\t\t: 800.000\n\nmodel name\t: A CPU\ncpu MHz\t\t: 3499.71\n"
    assert (cpu_model(text), cpu_mhz(text)) == ("A CPU", 3500)
    assert (cpu_model("processor: 0\n"), cpu_mhz("")) == (None, None)


def test_generations_of_one_name_are_told_apart() -> None:
    """Zen 4 and Zen 5 are both called "AMD EPYC" in virtual machines: the numbers of family and model differ."""
    text = "cpu family\t: {}\nmodel\t\t: {}\nmodel name\t: AMD EPYC\n"
    assert cpu_model(text.format(25, 17)) == "AMD EPYC (family 25, model 17)"
    assert cpu_model(text.format(26, 2)) == "AMD EPYC (family 26, model 2)"


def test_command_prints_a_table_and_writes_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row a batch size on stdout, one object in the file, its paths and batches inside."""
    monkeypatch.setattr(timing, "disturbance", lambda *_: None)
    Image.fromarray(np.zeros((20, 10, 3), np.uint8)).save(tmp_path / "x.png")
    path = write_artifact(tmp_path / "a.onnx")
    options = [
        "--batch",
        "1,2",
        "--seconds",
        "0.1",
        "--images",
        str(tmp_path),
        "--json",
        str(tmp_path / "j.json"),
    ]
    result = CliRunner().invoke(CLI, [str(path), *options])
    assert result.exit_code == 0, result.output
    assert "images/s" in result.stdout
    assert "from 1 files" in result.stdout
    written = json.loads((tmp_path / "j.json").read_text())
    assert [row["batch_size"] for row in written["batches"]] == [1, 2]
    assert {"artifact", "session", "machine", "versions", "end_to_end", "warnings"} <= written.keys()


@pytest.mark.parametrize("batch", ["", "1,x", "0", "1;2"])
def test_command_refuses_unreadable_batches(tmp_path: Path, batch: str) -> None:
    """--batch takes positive numbers with commas between."""
    with pytest.raises(InputError, match="expected positive numbers"):
        CliRunner().invoke(CLI, [str(tmp_path / "a.onnx"), "--batch", batch], catch_exceptions=False)
