"""A run: interrupted, resumed, killed, diverged, and shared among processes."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reidexport.checkpoint.loading import imagenet_preprocess, load_checkpoint, save_checkpoint
from reidexport.data import Dataset
from reidexport.data.synthetic import draw_dataset
from reidexport.errors import (
    CheckpointError,
    DatasetError,
    ImageError,
    InputError,
    StoppedError,
    TrainingError,
)
from tests import ROOT
from tests.standins.slow_training import slow_training
from train import training
from train.checkpoints import BEST, LAST, read_training_checkpoint
from train.cli import main
from train.data_warnings import data_warnings
from train.dataset import load_train_split
from train.evaluation import evaluate_checkpoint
from train.execution import chosen_precision, without_tf32
from train.images import load_train_images
from train.learner import METRICS
from train.recipe import Recipe, load_recipe
from train.result import HISTORY, RESULT
from train.training import TrainingOptions, train

SMALL = [
    *("model.backbone=osnet_x0_25", "tricks.last_stride_1=false"),
    *(
        "images.height_px=64",
        "images.width_px=32",
        "images.pad_px=4",
        "batch.num_pids=4",
        "batch.num_instances=2",
    ),
    *(
        "schedule.num_epochs=3",
        "schedule.decay_epochs=[2]",
        "checkpoint_every_epochs=2",
        "synthetic.num_train_pids=0",
    ),
]
OPTIONS = TrainingOptions(init="none", workers=2)

Finished = tuple[Path, dict[str, Any]]
"""A run's folder, and what its ``result.json`` holds."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eight people to train on, eight images each."""
    root = tmp_path_factory.mktemp("train") / "drawn"
    return draw_dataset(root, num_train_pids=8, num_test_pids=3, num_cameras=2, images_per_camera=4)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """The other tricks on the smallest OSNet for images of 64x32 px, three epochs of about eight steps."""
    return load_recipe("smoke", SMALL)


@pytest.fixture(scope="module")
def whole(dataset: Dataset, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run without interruption: its folder and result."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, train(recipe, dataset, out, OPTIONS)


def losses(folder: Path) -> list[dict[str, float]]:
    """The metrics of every epoch."""
    return [{name: each[name] for name in METRICS} for each in json.loads((folder / HISTORY).read_text())]


def same_weights(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same bits."""
    weights, expected = (torch.load(run / LAST, weights_only=True)["state_dict"] for run in (one, other))
    return all(torch.equal(weights[key], expected[key]) for key in expected)


def test_a_run_leaves_what_is_promised(whole: Finished, recipe: Recipe) -> None:
    """Checkpoints that load, export's architecture in them, the history and the result."""
    out, result = whole
    names = {entry.name for entry in out.iterdir()}
    assert names == {LAST, BEST, "epoch-002.pth", HISTORY, RESULT, "tensorboard", "pictures"}
    assert json.loads((out / RESULT).read_text()) == json.loads(json.dumps(result))
    assert 0 < result["mAP"] <= 1  # rank-1 of so few queries can be 0
    assert result["images_per_s"] > 0
    assert 0 <= result["data_wait_share"] < 1
    for name in (LAST, BEST, "epoch-002.pth"):
        content = torch.load(out / name, weights_only=True)
        assert content["recipe"]["schedule"]["num_epochs"] == 3
        architecture = load_checkpoint(out / name).architecture
        assert (architecture.backbone, architecture.neck, architecture.num_classes) == (
            "osnet_x0_25",
            "bnneck",
            8,
        )
    assert "state" not in torch.load(out / BEST, weights_only=True)
    assert any((out / "tensorboard").iterdir())
    assert recipe.metric == result["metric"] == "cosine"
    assert result["execution"] == {
        "precision": "fp32",
        "compiled": False,
        "steps": "plain: there is no GPU",
        "evaluation": "fp32, images read from their files",
    }


def test_resuming_gives_the_losses_of_an_uninterrupted_run(
    whole: Finished, dataset: Dataset, recipe: Recipe, tmp_path: Path
) -> None:
    """Stopped twice in the middle of epochs: every loss and every weight is bit for bit the same."""
    for steps in (3, 9):
        calls = iter(range(1000))
        with pytest.raises(StoppedError, match=r"stopped in epoch \d after step \d of \d.*--resume"):
            train(recipe, dataset, tmp_path, replace(OPTIONS, resume=True), stop=lambda: next(calls) == steps)  # noqa: B023
    train(recipe, dataset, tmp_path, replace(OPTIONS, resume=True))
    assert losses(tmp_path) == losses(whole[0])
    assert same_weights(tmp_path, whole[0])


def test_an_interrupted_epoch_took_the_time_of_all_its_parts(
    dataset: Dataset, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that ticks once a step, each epoch takes as many seconds as it has steps, in one part or in two."""
    seconds, rates = [], []
    for name, stops in (("whole", ()), ("stopped", (3, 9))):
        ticks = iter(range(1000))
        monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=partial(next, ticks)))
        for steps in stops:
            calls = iter(range(1000))
            with pytest.raises(StoppedError):
                train(
                    recipe,
                    dataset,
                    tmp_path / name,
                    replace(OPTIONS, resume=True),
                    stop=lambda: next(calls) == steps,  # noqa: B023
                )
        train(recipe, dataset, tmp_path / name, replace(OPTIONS, resume=True))
        history = json.loads((tmp_path / name / HISTORY).read_text())
        seconds.append([each["seconds"] for each in history])
        rates.append([each["images_per_s"] for each in history])
    images = load_train_images(dataset.train, 64, 32, torch.device("cpu"), workers=1)
    assert seconds[0] == [len(training.plan_of_epoch(images, recipe, epoch)) for epoch in (1, 2, 3)]
    assert seconds[1] == seconds[0]
    assert rates == [[8.0] * 3] * 2


def test_the_losses_are_those_of_the_trainer_written_out(
    whole: Finished, dataset: Dataset, recipe: Recipe
) -> None:
    """Every epoch's mean of every metric, and the weights in the end: bit for bit."""
    images = load_train_images(dataset.train, 64, 32, torch.device("cpu"), workers=1)
    for (model, steps), found in zip(slow_training(recipe, images), losses(whole[0]), strict=True):  # noqa: B007
        means = [sum(values) / len(steps) for values in zip(*steps, strict=True)]
        assert list(found.values()) == means
    weights = torch.load(whole[0] / LAST, weights_only=True)["state_dict"]
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_any_last_pth_resumes_to_the_same_end(
    whole: Finished, dataset: Dataset, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the middle of an epoch and one of the end of an epoch, both older than where the run was: bit for bit."""
    copies: dict[str, Path] = {}
    write = training.write_checkpoint
    # An epoch that is evaluated is saved, however busy the thread is that saves.
    recipe = replace(recipe, evaluation=replace(recipe.evaluation, every_epochs=1))

    def copying(path: Path, *arguments: Any) -> None:
        write(path, *arguments)
        progress = arguments[-1] and arguments[-1]["progress"]
        kind = progress and ("middle" if progress["step"] else "end")
        if kind and kind not in copies and (kind == "middle" or progress["epoch"] == 1):
            copies[kind] = tmp_path / kind
            copies[kind].mkdir()
            for each in (path, path.with_name(BEST)):
                if each.exists():
                    shutil.copy(each, copies[kind])

    monkeypatch.setattr(training, "write_checkpoint", copying)
    train(recipe, dataset, tmp_path / "run", replace(OPTIONS, save_every_s=0))
    monkeypatch.undo()
    assert set(copies) == {"middle", "end"}
    for folder in copies.values():
        train(recipe, dataset, folder, replace(OPTIONS, resume=True))
        assert losses(folder) == losses(whole[0])
        assert same_weights(folder, whole[0])


def test_history_is_never_ahead_of_last_pth(
    dataset: Dataset, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the end of epoch 2: the run ends with that error, and both files are epoch 1's."""
    write = training.write_checkpoint

    def failing(path: Path, *arguments: Any) -> None:
        if path.name == LAST and arguments[-1]["progress"]["epoch"] == 2:
            raise InputError("No space left on device")
        write(path, *arguments)

    monkeypatch.setattr(training, "write_checkpoint", failing)
    with pytest.raises(InputError, match="No space left on device"):
        train(recipe, dataset, tmp_path, OPTIONS)
    assert read_training_checkpoint(tmp_path / LAST)["run"]["epoch"] == 1
    assert len(losses(tmp_path)) == 1


def test_an_error_does_not_lose_the_last_finished_epoch(
    dataset: Dataset, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch is saved at once, the second would have waited; epoch 3 fails, and last.pth is epoch 2's."""
    seen = []

    def failing(epoch: int, *_: object, **__: object) -> float:
        if epoch == 3:
            raise RuntimeError("out of memory")
        if epoch == 2:
            seen.append(read_training_checkpoint(tmp_path / LAST)["run"]["epoch"])
        return 1e-3

    monkeypatch.setattr(training, "learning_rate", failing)
    longer = replace(recipe, checkpoint_every_epochs=100)
    wait = training.Processes.wait

    def waiting(processes: training.Processes) -> None:
        while not (tmp_path / LAST).exists():
            time.sleep(0.01)
        wait(processes)

    monkeypatch.setattr(training.Processes, "wait", waiting)
    with pytest.raises(RuntimeError, match="out of memory"):
        train(longer, dataset, tmp_path, replace(OPTIONS, save_every_s=1e9))
    assert seen == [1]
    assert read_training_checkpoint(tmp_path / LAST)["run"]["epoch"] == 2
    assert len(losses(tmp_path)) == 2


def test_a_failing_evaluation_loses_nothing(
    whole: Finished, dataset: Dataset, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch is saved before it is scored; resumed, it is scored and the run ends as one without the failure."""
    evaluating = replace(recipe, evaluation=replace(recipe.evaluation, every_epochs=2))

    def failing(*_: Any, **__: Any) -> None:
        raise ImageError("a.jpg: cut short")

    with monkeypatch.context() as patched:
        patched.setattr(training, "evaluate_checkpoint", failing)
        with pytest.raises(ImageError, match="cut short") as caught:
            train(evaluating, dataset, tmp_path, replace(OPTIONS, save_every_s=1e9))
    assert caught.value.__notes__[0].startswith(
        f"Epoch 2 is saved: {tmp_path / LAST}. With --resume the same command"
    )
    assert read_training_checkpoint(tmp_path / LAST)["run"]["epoch"] == 2
    assert (tmp_path / "epoch-002.pth").exists()
    assert not (tmp_path / BEST).exists()
    train(evaluating, dataset, tmp_path, replace(OPTIONS, resume=True))
    assert [
        each["epoch"] for each in json.loads((tmp_path / HISTORY).read_text()) if "evaluation" in each
    ] == [2, 3]
    assert losses(tmp_path) == losses(whole[0])
    assert same_weights(tmp_path, whole[0])


def test_losses_and_stops_are_looked_at_every_few_steps(
    whole: Finished, dataset: Dataset, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, which every look makes the CPU wait for: the other processes are not waited for in between."""
    calls = []
    any_of = training.Processes.any
    monkeypatch.setattr(training.Processes, "any", lambda self, flag: calls.append(1) or any_of(self, flag))
    monkeypatch.setattr(training, "steps_between_checks", lambda device: 3)
    train(recipe, dataset, tmp_path, OPTIONS)
    assert losses(tmp_path) == losses(whole[0])
    images = load_train_images(dataset.train, 64, 32, torch.device("cpu"), workers=1)
    num_steps = [len(training.plan_of_epoch(images, recipe, epoch)) for epoch in (1, 2, 3)]
    assert len(calls) == sum(-(-count // 3) for count in num_steps) < sum(num_steps)
    with pytest.raises(StoppedError, match="stopped in epoch 1 after step 2 of"):  # at once
        train(recipe, dataset, tmp_path / "stopped", OPTIONS, stop=partial(next, iter([False, True]), True))


def test_a_run_without_a_test_split_says_so(dataset: Dataset, tmp_path: Path) -> None:
    """Refused unless evaluation is switched off; then there are no scores and no best.pth, and the result says why."""
    recipe = load_recipe("smoke", [*SMALL, "schedule.num_epochs=1", "schedule.warmup_epochs=1"])
    blind = replace(dataset, query=(), gallery=())
    with pytest.raises(DatasetError, match=r"no test split to evaluate on.*--no-evaluation"):
        train(recipe, blind, tmp_path, OPTIONS)
    result = train(recipe, blind, tmp_path, replace(OPTIONS, evaluate=False))
    assert result["execution"]["evaluation"] == "none: --no-evaluation"
    assert result["best"] is None
    assert "rank1" not in result
    assert not (tmp_path / BEST).exists()
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == {
        "curves",
        "learning-rate",
        "random-erasing",
    }


def test_one_camera_is_said_before_the_first_step(dataset: Dataset, tmp_path: Path) -> None:
    """With both ways out; told to keep the camera, a run is scored, and says so in what it leaves."""
    one_epoch = [*SMALL, "schedule.num_epochs=1", "schedule.warmup_epochs=1"]
    query, gallery = (
        tuple(replace(record, camid=0) for record in part) for part in (dataset.query, dataset.gallery)
    )
    one_camera = replace(dataset, query=query, gallery=gallery)
    with pytest.raises(
        DatasetError, match=r"all images are of camera 1.*--same-camera keep.*--no-evaluation trains"
    ):
        train(load_recipe("smoke", one_epoch), one_camera, tmp_path, OPTIONS)
    assert not (tmp_path / LAST).exists()
    recipe = load_recipe("smoke", [*one_epoch, "evaluation.same_camera=keep"])
    result = train(recipe, one_camera, tmp_path, OPTIONS)
    assert result["same_camera"] == result["best"]["same_camera"] == "keep"
    evaluation = evaluate_checkpoint(
        load_checkpoint(tmp_path / LAST), replace(one_camera, same_camera="keep"), metric="cosine"
    )
    assert result["mAP"] == pytest.approx(evaluation.metrics.mAP, abs=1e-6)


def test_doubtful_data_is_warned_of_before_the_first_step(dataset: Dataset, tmp_path: Path) -> None:
    """The log begins with it; a data set of other persons with several images each has nothing of the kind."""
    recipe = load_recipe("smoke", [*SMALL, "schedule.num_epochs=1", "schedule.warmup_epochs=1"])
    lines: list[str] = []
    train(
        recipe,
        replace(dataset, train=(*dataset.train, dataset.query[0])),
        tmp_path,
        OPTIONS,
        log=lines.append,
    )
    assert [line.startswith("warning: ") for line in lines] == [True] * 3 + [False] * (len(lines) - 3)
    assert list(data_warnings(dataset, evaluate=True)) == []


def test_the_training_split_alone_is_a_data_set(dataset: Dataset, tmp_path: Path) -> None:
    """bounding_box_train in a folder of a known name; without it a whole data set is needed."""
    source = dataset.train[0].path.parents[1]
    folder = tmp_path / "some" / "Market-1501-v15.09.15"
    folder.mkdir(parents=True)
    with pytest.raises(DatasetError, match="holds no known data set"):
        load_train_split(folder.parent)
    (folder / "bounding_box_train").symlink_to(source / "bounding_box_train")
    for root in (folder, folder.parent):
        found = load_train_split(root)
        assert (found.name, len(found.train), found.query, found.gallery) == ("market1501", 64, (), ())


def test_fp32_on_a_gpu_is_not_tf32() -> None:
    """Convolutions and products are set to IEEE float32 for it; bf16 leaves the switches alone, and so does a CPU."""
    gpu, backends = torch.device("cuda"), torch.backends
    before = (backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision)
    with without_tf32("fp32", gpu):
        assert backends.cudnn.conv.fp32_precision == backends.cuda.matmul.fp32_precision == "ieee"
    assert chosen_precision("auto", gpu) == "bf16"
    for precision, device in (("bf16", gpu), ("fp32", torch.device("cpu"))):
        with without_tf32(precision, device):  # type: ignore[arg-type]
            assert (backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision) == before


def test_a_finished_run_is_not_trained_again(whole: Finished, dataset: Dataset, recipe: Recipe) -> None:
    """Resuming it gives its result, with what was measured then, and logs nothing."""
    lines: list[str] = []
    result = train(recipe, dataset, whole[0], replace(OPTIONS, resume=True), log=lines.append)
    assert lines == []
    assert result == json.loads(json.dumps(whole[1]))


def test_checkpoints_of_a_run_that_cannot_be_continued_are_kept(
    dataset: Dataset, recipe: Recipe, tmp_path: Path
) -> None:
    """A folder with a best.pth and no last.pth is refused: a new run would replace it."""
    (tmp_path / "best.pth").write_bytes(b"kept")
    with pytest.raises(
        InputError, match=r"holds best\.pth, but no last\.pth to continue: choose another --out"
    ):
        train(recipe, dataset, tmp_path, OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pth"]


def test_another_run_s_folder_is_refused(whole: Finished, dataset: Dataset, recipe: Recipe) -> None:
    """Without --resume, and with it where recipe or first weights differ: the message names both values."""
    out, _ = whole
    with pytest.raises(InputError, match="holds a run already: pass --resume"):
        train(recipe, dataset, out, OPTIONS)
    other = load_recipe("smoke", [*SMALL, "schedule.num_epochs=4"])
    with pytest.raises(InputError, match=r"belongs to another run.*schedule\.num_epochs: 3 and 4"):
        train(other, dataset, out, replace(OPTIONS, resume=True))
    with pytest.raises(CheckpointError, match=r"--init no\.pth: there is no such file"):
        train(recipe, dataset, out, replace(OPTIONS, resume=True, init="no.pth"))
    with pytest.raises(InputError, match="init: none and imagenet"):
        train(recipe, dataset, out, replace(OPTIONS, resume=True, init="imagenet"))


def test_divergence_stops_the_run_and_keeps_the_last_good_checkpoint(
    dataset: Dataset, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is not finite in epoch 2: an error with step, values and advice; last.pth is epoch 1's."""
    monkeypatch.setattr(training, "learning_rate", lambda epoch, *_, **__: 1e-3 if epoch == 1 else 1e30)
    with pytest.raises(
        TrainingError, match=r"epoch 2, step \d: loss .*last good checkpoint is .*last\.pth.*Lower"
    ):
        train(recipe, dataset, tmp_path, OPTIONS)
    saved = read_training_checkpoint(tmp_path / LAST)
    assert saved["run"]["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())


def test_first_weights_come_from_a_checkpoint(tmp_path: Path) -> None:
    """A file's backbone is used; another backbone's is refused with the first tensor that differs."""
    from train.model import build_model, initialize

    other_seed = build_model(load_recipe("smoke", ["seed=1"]), 5)
    save_checkpoint(tmp_path / "other.pth", other_seed, imagenet_preprocess(64, 32))
    expected = other_seed.state_dict()
    recipe = load_recipe("smoke")
    model = build_model(recipe, 5)
    initialize(model, str(tmp_path / "other.pth"))
    assert torch.equal(
        model.backbone.state_dict()["layer4.1.conv2.weight"], expected["backbone.layer4.1.conv2.weight"]
    )
    plain = tmp_path / "plain.pth"
    torch.save(
        {key.removeprefix("backbone."): value for key, value in expected.items() if "backbone" in key}, plain
    )
    initialize(build_model(recipe, 5), str(plain))
    other = build_model(load_recipe("smoke", ["model.backbone=resnet34"]), 5)
    with pytest.raises(
        CheckpointError, match=r"not those of resnet34: layer1\.2\.conv1\.weight .* is missing"
    ):
        initialize(other, str(plain))


def test_first_weights_that_nobody_publishes_are_refused(recipe: Recipe) -> None:
    """OSNet has none at torchvision or timm: the message says what to pass instead."""
    from train.model import build_model, initialize

    model = build_model(load_recipe("smoke", ["model.backbone=osnet_x0_25", "tricks.last_stride_1=false"]), 5)
    with pytest.raises(
        InputError, match=r"publish no weights for osnet_x0_25\. Pass a file to --init, or none"
    ):
        initialize(model, "imagenet")
    with pytest.raises(InputError, match=r"has no last stride: set tricks\.last_stride_1=false"):
        build_model(load_recipe("smoke", ["model.backbone=osnet_x0_25"]), 5)


def test_data_is_asked_for_and_checked(recipe: Recipe, tmp_path: Path, dataset: Dataset) -> None:
    """No training images, and fewer identities than a batch needs."""
    with pytest.raises(DatasetError, match="has no training images"):
        train(recipe, replace(dataset, train=()), tmp_path, OPTIONS)
    few = replace(dataset, train=tuple(record for record in dataset.train if record.pid < 3))
    with pytest.raises(DatasetError, match="has 2 identities, a batch needs 4"):
        train(recipe, few, tmp_path / "few", OPTIONS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["strong-baseline", "--out", "x"], "this recipe needs a data set: --data ROOT"),
        (["smoke", "--out", "x", "--data", "y"], "draws its own data set: leave --data out"),
        (["table", "3", "--out", "x", "--data", "y"], "pass --target"),
        (["table", "1", "--out", "x", "--data", "y", "--target", "z"], "leave --target out"),
    ],
)
def test_usage_errors_exit_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr that says what is missing."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def command(out: Path, *arguments: str) -> list[str]:
    """A smoke run of many short epochs, as a user would start it."""
    changes = [
        f"--set={each}" for each in (*SMALL, "synthetic.num_train_pids=6", "synthetic.num_test_pids=2")
    ]
    return [sys.executable, "-m", "train", "smoke", "--out", str(out), *changes, *arguments]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_kills_lose_only_what_was_not_saved(dataset: Dataset, tmp_path: Path) -> None:
    """SIGKILL at random moments of a run that saves all the time: in the end all is as if it had never been killed.

    After every kill last.pth is readable, history.json is not ahead of it, and the next start continues from it.
    """
    rng = random.Random(0)
    out, log = tmp_path / "run", tmp_path / "log"
    changes = [*SMALL, "schedule.num_epochs=8", "evaluation.every_epochs=5"]
    saved = 0
    for _ in range(2):
        started = [sys.executable, "-m", "train", "smoke", "--data", str(dataset.train[0].path.parents[1])]
        started += ["--out", str(out), "--init", "none", "--save-every", "0", "--resume"]
        started += [f"--set={each}" for each in changes]
        with log.open("w") as stream:
            process = subprocess.Popen(started, cwd=ROOT, env=ENVIRONMENT, stderr=stream)
            while process.poll() is None and "epoch" not in log.read_text():
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, log.read_text()
        epochs = [int(number) for number in re.findall(r"^epoch (\d+)/", log.read_text(), re.MULTILINE)]
        assert epochs[0] == saved + 1
        if (out / LAST).exists():
            saved = read_training_checkpoint(out / LAST)["run"]["epoch"]
            load_checkpoint(out / LAST)
        if (out / HISTORY).exists():
            assert len(losses(out)) <= saved
    assert saved > 0, "nothing was saved in between"
    recipe = load_recipe("smoke", changes)
    train(recipe, dataset, out, replace(OPTIONS, resume=True))
    train(recipe, dataset, tmp_path / "whole", OPTIONS)
    assert losses(out) == losses(tmp_path / "whole")
    assert same_weights(out, tmp_path / "whole")
    assert not list(out.glob(".*.pth")), "what a killed write left behind was not removed"


def test_ctrl_c_saves_and_stops(tmp_path: Path) -> None:
    """SIGINT: exit status 130, a message that says how to continue, and a checkpoint in the middle of an epoch."""
    out, log = tmp_path / "run", tmp_path / "log"
    with log.open("w") as stream:
        started = command(out, "--set=schedule.num_epochs=100000")
        process = subprocess.Popen(started, cwd=ROOT, env=ENVIRONMENT, stderr=stream)
        while process.poll() is None and "epoch" not in log.read_text():
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, log.read_text()
    assert "--resume to continue" in log.read_text()
    read_training_checkpoint(out / LAST)


# One of these that is at work when Python ends aborts the process.
NO_THREAD_STAYS = """
import contextlib, pathlib, sys
from train.cli import main
try:
    main(sys.argv[1:])
finally:
    names = []
    for task in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # of a thread that has just ended
            names.append((task / "comm").read_text())
    if any("gloo" in name for name in names):
        sys.exit(f"still at work: {names}")
"""


def test_two_processes_train_as_one(dataset: Dataset, tmp_path: Path) -> None:
    """The same losses and gradients from two gloo processes that share every batch, mining in the whole of it.

    The network has no BatchNorm, whose statistics would be those of each process's part. The group's threads have
    ended with the training.
    """
    program = tmp_path / "program.py"
    program.write_text(NO_THREAD_STAYS)
    changes = [
        *SMALL,
        "model.backbone=timm/convnext_atto",
        "tricks.bnneck=false",
        "tricks.last_stride_1=false",
    ]
    changes += ["schedule.num_epochs=1", "schedule.warmup_epochs=1"]
    arguments = ["smoke", "--data", str(dataset.train[0].path.parents[1]), "--init", "none", "--workers", "1"]
    arguments += [f"--set={each}" for each in changes]
    launchers = {
        "one": [sys.executable, "-m", "train"],
        "two": [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            str(program),
        ],
    }
    for name, launcher in launchers.items():
        started = [*launcher, *arguments, "--out", str(tmp_path / name)]
        done = subprocess.run(started, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    (one,), (two,) = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one == pytest.approx(two, rel=1e-4)
    weights = [load_checkpoint(tmp_path / name / LAST).state_dict for name in launchers]
    worst = max(
        float((weights[0][key] - weights[1][key]).norm() / weights[0][key].norm()) for key in weights[0]
    )
    assert worst < 1e-3
