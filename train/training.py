"""A training run: epochs, evaluations and checkpoints, interruptible at every step.

recipe ─▶ batches_of_epoch ─▶ Learner.learn ─▶ last.pth ─▶ evaluate ─▶ best.pth, result.json
"""

import json
import resource
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from reidruntime.manifest import file_sha256

from reidexport.checkpoint import load_checkpoint
from reidexport.datasets import Dataset
from reidexport.errors import CheckpointError, InputError, StoppedError, TrainingError
from reidexport.files import replaced_when_whole
from reidexport.graph import graph_from_checkpoint
from reidexport.machine import machine_info, package_versions
from reidexport.progress import progress_bar
from train.checkpoints import BEST, LAST, read_training_checkpoint, write_checkpoint
from train.distributed import Processes, default_device, joined_processes
from train.evaluation import checkpoint_in_memory, evaluate_checkpoint, scores
from train.images import TrainImages, batches_of_epoch, load_train_images, plan_of_epoch
from train.learner import METRICS, Learner
from train.model import build_model, initialise
from train.pictures import write_pictures
from train.recipe import Recipe, recipe_differences, recipe_from_dict
from train.scalars import open_scalars
from train.schedule import learning_rate

Precision = Literal["auto", "fp32", "bf16"]
RESULT, HISTORY = "result.json", "history.json"
_GPU_STEPS_BETWEEN_CHECKS = 20  # looking at a loss makes the CPU wait for the GPU


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a recipe is run, which does not change what it computes.

    Attributes:
        init: first weights: "imagenet", "none" or a file.
        resume: go on with the run in the output folder, if there is one.
        precision: of the backbone: "bf16" autocast, "fp32", or "auto": bf16 on a GPU.
        compiled: torch.compile the backbone.
        workers: threads that decode images and make batches.
    """

    init: str = "imagenet"
    resume: bool = False
    precision: Precision = "auto"
    compiled: bool = False
    workers: int = 2


@dataclass
class Progress:
    """Where a run is: epochs done, steps done of the next one with the sums of their metrics, and what happened."""

    epoch: int
    step: int
    sums: list[float]
    history: list[dict[str, Any]]


def train(
    recipe: Recipe,
    dataset: Dataset,
    out: str | Path,
    options: RunOptions,
    *,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run a recipe, or go on with it, to its end.

    ``out`` gets ``last.pth`` after every epoch, ``best.pth`` by mAP, ``epoch-NNN.pth``, ``history.json``,
    TensorBoard's scalars and, at the end, pictures and ``result.json``.

    Args:
        recipe: what to compute.
        dataset: with train, query and gallery.
        out: the run's folder.
        options: how to compute it.
        stop: asked after every step; True saves and stops.
        say: called with a line for every epoch.

    Returns:
        What ``result.json`` holds.

    Raises:
        InputError: ``out`` holds a run and ``resume`` is off, or a run of another recipe, data set or init.
        StoppedError: ``stop`` said so; everything is saved.
        TrainingError: a loss or gradient is not finite; the last good checkpoint is there.
    """
    out, device = Path(out), default_device()
    images_settings = recipe.images
    with joined_processes(device) as processes:
        _check_world(recipe, processes)
        saved = _saved_run(out, recipe, dataset, options)
        finished = saved is not None and saved["run"]["epoch"] == recipe.schedule.num_epochs
        if finished and (out / RESULT).is_file():
            result: dict[str, Any] = json.loads((out / RESULT).read_text())
            return result if processes.is_first else {}
        with progress_bar("decoding", len(dataset.train)) as show:
            images = load_train_images(
                dataset.train,
                images_settings.height_px,
                images_settings.width_px,
                device,
                workers=options.workers,
                progress=show if processes.is_first else None,
            )
        baseline = build_model(recipe, images.num_classes)
        # What cannot be exported is not worth a night of training.
        graph_from_checkpoint(
            checkpoint_in_memory(baseline, images_settings.height_px, images_settings.width_px)
        )
        if saved is None:
            initialise(baseline, options.init)
        bf16 = options.precision == "bf16" or (options.precision == "auto" and device.type == "cuda")
        learner = Learner(
            baseline,
            recipe,
            device,
            processes=processes,
            autocast=torch.bfloat16 if bf16 else None,
            compiled=options.compiled,
        )
        progress = Progress(0, 0, [0.0] * len(METRICS), [])
        if saved is not None:
            learner.load(saved["state_dict"], saved["state"]["learner"])
            progress = Progress(**saved["state"]["progress"])
        run = _Run(recipe, dataset, out, options, learner, images, processes, progress, stop, say)
        with closing(open_scalars(out if processes.is_first else None, progress.epoch)) as scalars:
            while progress.epoch < recipe.schedule.num_epochs:
                record = run.next_epoch()
                scalars.add(record)
        return run.finish() if processes.is_first else {}


@dataclass
class _Run:
    """One process's part in a run."""

    recipe: Recipe
    dataset: Dataset
    out: Path
    options: RunOptions
    learner: Learner
    images: TrainImages
    processes: Processes
    progress: Progress
    stop: Callable[[], bool]
    say: Callable[[str], None]

    def next_epoch(self) -> dict[str, Any]:
        """Train one epoch to its end, evaluate when it is due, save, and return what is to be remembered."""
        recipe, progress = self.recipe, self.progress
        epoch = progress.epoch + 1
        record = self._train_epoch(epoch)
        due = epoch % recipe.evaluation.every_epochs == 0 or epoch == recipe.schedule.num_epochs
        if due and self.processes.is_first:
            record["evaluation"] = self._evaluate()
        best = max(
            (each["evaluation"]["mAP"] for each in progress.history if "evaluation" in each), default=-1.0
        )
        progress.history.append(record)
        progress.epoch, progress.step, progress.sums = epoch, 0, [0.0] * len(METRICS)
        if self.processes.is_first:
            if "evaluation" in record and record["evaluation"]["mAP"] > best:
                self._save(BEST, resumable=False)
            if epoch % recipe.checkpoint_every_epochs == 0:
                self._save(f"epoch-{epoch:03d}.pth", resumable=False)
            self._save(LAST, resumable=True)
            _write_json(self.out / HISTORY, progress.history)
            self.say(epoch_line(record, recipe.schedule.num_epochs))
        self.processes.wait()
        return record

    def finish(self) -> dict[str, Any]:
        """Write the pictures and ``result.json``, and return what that holds."""
        history = self.progress.history
        evaluated = [each for each in history if "evaluation" in each]
        best = max(evaluated, key=lambda each: float(each["evaluation"]["mAP"]))
        result = {
            **history[-1]["evaluation"],
            "best": {"epoch": best["epoch"], **best["evaluation"]},
            "recipe": asdict(self.recipe),
            **self._facts(),
            "num_train": len(self.dataset.train),
            "num_train_pids": self.images.num_classes,
            "seconds": sum(each["seconds"] for each in history),
            "images_per_s": _mean(history, "images_per_s"),
            "data_wait_share": _mean(history, "data_wait_share"),
            "peak_memory_mib": _peak_memory_mib(),
            "machine": machine_info(),
            "versions": package_versions(),
        }
        best_weights = load_checkpoint(self.out / BEST)
        write_pictures(self.out, self.recipe, self.dataset, best_weights, history)
        _write_json(self.out / RESULT, result)
        return result

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        recipe, progress, device = self.recipe, self.progress, self.images.pixels.device
        rate = learning_rate(epoch, recipe.schedule, warmup=recipe.tricks.warmup)
        plan = plan_of_epoch(self.images, recipe, epoch)
        num_steps = len(plan)
        batches = batches_of_epoch(
            self.images,
            recipe,
            epoch,
            plan,
            first=progress.step,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
            workers=self.options.workers,
        )
        between_checks = _GPU_STEPS_BETWEEN_CHECKS if device.type == "cuda" else 1
        began, num_images, waits = time.perf_counter(), 0, []
        pending: list[torch.Tensor] = []
        with progress_bar(f"epoch {epoch}/{recipe.schedule.num_epochs}", num_steps) as show:
            for batch in batches:
                torch.manual_seed(hash((recipe.seed, epoch, progress.step)))  # of backbones with dropout
                pending.append(self.learner.learn(batch.images, batch.labels, rate))
                waits.append(batch.waited)
                num_images += len(batch.labels) * self.processes.world_size
                progress.step += 1
                stopping = self.processes.any(self.stop())
                if len(pending) == between_checks or progress.step == num_steps or stopping:
                    self._account(pending, epoch)
                    pending = []
                    if show and self.processes.is_first:
                        show(progress.step)
                if stopping and progress.step < num_steps:
                    self._stopped(epoch, num_steps)
        seconds = time.perf_counter() - began
        means = (
            self.processes.mean(torch.tensor(progress.sums, dtype=torch.float64, device=device)) / num_steps
        )
        return {
            "epoch": epoch,
            "learning_rate": rate,
            **dict(zip(METRICS, means.tolist(), strict=True)),
            "seconds": seconds,
            "images_per_s": num_images / seconds,
            "data_wait_share": sum(wait() for wait in waits) / seconds,
        }

    def _account(self, pending: list[torch.Tensor], epoch: int) -> None:
        """Add the metrics of the last steps to the epoch's sums, if all of them are finite."""
        values = torch.stack(pending).double().cpu()
        first_step = self.progress.step - len(pending) + 1
        for step, row in enumerate(values.tolist(), start=first_step):
            found = dict(zip(METRICS, row, strict=True))
            if not all(abs(value) < float("inf") for value in row):
                kept = self.out / LAST
                advice = (
                    f"The last good checkpoint is {kept}."
                    if kept.exists()
                    else "No epoch was finished before."
                )
                raise TrainingError(
                    f"epoch {epoch}, step {step}: "
                    + ", ".join(f"{name} {value:.4g}" for name, value in found.items())
                    + f". Losses and gradients must be finite. {advice} Lower schedule.learning_rate, or check the "
                    "first weights."
                )
            self.progress.sums = [total + value for total, value in zip(self.progress.sums, row, strict=True)]

    def _stopped(self, epoch: int, num_steps: int) -> None:
        if self.processes.is_first:
            self._save(LAST, resumable=True)
        self.processes.wait()
        raise StoppedError(
            f"stopped in epoch {epoch} after step {self.progress.step} of {num_steps}; {self.out / LAST} holds "
            "everything. Run the same command with --resume to go on."
        )

    def _evaluate(self) -> dict[str, Any]:
        images = self.recipe.images
        checkpoint = checkpoint_in_memory(self.learner.baseline, images.height_px, images.width_px)
        with progress_bar("evaluating", len(self.dataset.query) + len(self.dataset.scored_gallery)) as show:
            evaluation = evaluate_checkpoint(
                checkpoint, self.dataset, metric=self.recipe.metric, progress=show
            )
        return scores(evaluation)

    def _save(self, name: str, *, resumable: bool) -> None:
        state = {"learner": self.learner.state(), "progress": asdict(self.progress)} if resumable else None
        run = {**self._facts(), "epoch": self.progress.epoch}
        write_checkpoint(self.out / name, self.learner.baseline, self.recipe, run, state)

    def _facts(self) -> dict[str, Any]:
        """What made the weights beside the recipe."""
        return {"init": init_text(self.options.init), "dataset": self.dataset.name}


@cache
def init_text(init: str) -> str:
    """First weights as results name them: a file by its name and content, wherever it lies."""
    if init in ("imagenet", "none"):
        return init
    if not Path(init).is_file():
        raise CheckpointError(
            f"--init {init}: there is no such file; expected imagenet, none or a checkpoint"
        )
    return f"{Path(init).name} (sha256 {file_sha256(Path(init))[:12]})"


def epoch_line(record: dict[str, Any], num_epochs: int) -> str:
    """One line about an epoch."""
    scored = record.get("evaluation")
    return (
        f"epoch {record['epoch']}/{num_epochs}  rate {record['learning_rate']:.2e}  id {record['id_loss']:.3f}  "
        f"triplet {record['triplet_loss']:.3f}  center {record['center_loss']:.1f}  "
        f"accuracy {record['accuracy']:.1%}  {record['images_per_s']:.0f} images/s  "
        f"waiting {record['data_wait_share']:.1%}"
        + (f"  rank-1 {scored['rank1']:.2%}  mAP {scored['mAP']:.2%}" if scored else "")
    )


def _saved_run(out: Path, recipe: Recipe, dataset: Dataset, options: RunOptions) -> dict[str, Any] | None:
    """The run that ``out`` holds, if it is to go on and is the same run."""
    last = out / LAST
    if not last.exists():
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{out}: cannot make the folder ({error.strerror}). Give another --out."
            ) from error
        return None
    if not options.resume:
        raise InputError(f"{out} holds a run already: pass --resume to go on with it, or give another --out")
    saved = read_training_checkpoint(last)
    differences = recipe_differences(recipe_from_dict(saved["recipe"], str(last)), recipe)
    for key, found in (("init", init_text(options.init)), ("dataset", dataset.name)):
        if saved["run"][key] != found:
            differences.append(f"{key}: {saved['run'][key]} and {found}")
    if differences:
        raise InputError(
            f"{last} is of another run than the one asked for: {'; '.join(differences)}. Give another --out, or the "
            "same settings."
        )
    return saved


def _check_world(recipe: Recipe, processes: Processes) -> None:
    if recipe.batch.num_pids % processes.world_size:
        raise InputError(
            f"batch.num_pids {recipe.batch.num_pids} cannot be shared out among {processes.world_size} processes: "
            "make it a multiple"
        )


def _write_json(path: Path, content: Any) -> None:
    with replaced_when_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _mean(history: list[dict[str, Any]], name: str) -> float:
    """Over the epochs, by the time that they took."""
    total = sum(each["seconds"] for each in history)
    return float(sum(each[name] * each["seconds"] for each in history) / total)


def _peak_memory_mib() -> float:
    """Of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
