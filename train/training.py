"""A training run: epochs, evaluations and checkpoints, interruptible at every step.

recipe ─▶ batches_of_epoch ─▶ Learner.step ─▶ evaluate ─▶ Saver: best.pth, last.pth ─▶ result.json
On a GPU batches are made within the step: steps_of_epoch ─▶ WholeStep.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from reidruntime.torch_settings import fastest_convolutions

from reidexport.checkpoint.loading import load_checkpoint
from reidexport.data import Dataset
from reidexport.errors import DatasetError, InputError, StoppedError, TrainingError
from reidexport.evaluation.protocol import check_scorable
from reidexport.export.graph import graph_from_checkpoint
from reidexport.progress import progress_bar
from reidexport.records.base import here
from train.checkpoints import BEST, LAST, remove_leftovers, saved_run, write_checkpoint
from train.data_warnings import data_warnings
from train.distributed import Processes, default_device, joined_processes
from train.evaluation import (
    TestImages,
    checkpoint_in_memory,
    evaluate_checkpoint,
    fits_on_gpu,
    load_test_images,
    scores,
)
from train.execution import (
    Precision,
    chosen_precision,
    steps_between_checks,
    steps_text,
    whole_step,
    without_tf32,
)
from train.images import TrainImages, batches_of_epoch, load_train_images, plan_of_epoch
from train.learner import METRICS, Learner
from train.model import build_model, init_text, initialize
from train.plots import write_plots
from train.recipe import Recipe
from train.result import (
    HISTORY,
    RESULT,
    TrainingResult,
    best_epoch,
    costs,
    epoch_line,
    write_json,
    write_measurement,
)
from train.sampler import Indices
from train.saving import Saver, Snapshot, finished_at_the_end, snapshot
from train.scalars import open_scalars
from train.schedule import learning_rate
from train.whole_step import seed_of_step, steps_of_epoch


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a recipe is run, which does not change what it computes.

    Attributes:
        init: first weights: "imagenet", "none" or a file.
        resume: continue the run in the output folder, if there is one.
        precision: of the backbone: "bf16" autocast, "fp32" (float32 itself, never TF32), or "auto": bf16 on a GPU.
        compiled: torch.compile the backbone.
        workers: threads that decode images and make batches.
        save_every_s: seconds between writes of ``last.pth``; epochs that are evaluated or kept are always written.
        cuda_graph: on a GPU, record the training step in a CUDA graph where that is possible.
        evaluate: score the test split; off, the data set needs none, and there is no ``best.pth``.
    """

    init: str = "imagenet"
    resume: bool = False
    precision: Precision = "auto"
    compiled: bool = False
    workers: int = 2
    save_every_s: float = 60.0
    cuda_graph: bool = True
    evaluate: bool = True


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        epoch: epochs done.
        step: steps done of the next one.
        sums: of the metrics of these steps.
        history: the records of the epochs done.
        seconds: that these steps took, in all the parts that an interrupted epoch has.
        waited_s: of them, for data.
    """

    epoch: int
    step: int
    sums: list[float]
    history: list[dict[str, Any]]
    seconds: float = 0.0
    waited_s: float = 0.0

    def finish_epoch(self) -> None:
        """Count the next epoch's steps from 0 again."""
        self.epoch, self.step, self.sums = self.epoch + 1, 0, [0.0] * len(METRICS)
        self.seconds = self.waited_s = 0.0


def train(
    recipe: Recipe,
    dataset: Dataset,
    out: str | Path,
    options: TrainingOptions,
    *,
    stop: Callable[[], bool] = lambda: False,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run a recipe, or continue it, to its end.

    ``out`` gets ``last.pth`` every ``save_every_s`` seconds, ``best.pth`` by mAP, ``epoch-NNN.pth``,
    ``history.json``, TensorBoard's scalars and, at the end, plots and ``result.json``. All but the last two are
    written in the background. However the run ends, an error included, ``last.pth`` holds the last finished epoch at
    least; after a kill, it lacks about the last ``save_every_s`` seconds. ``history.json`` is never ahead of
    ``last.pth``.

    Args:
        recipe: what to compute.
        dataset: with train, query and gallery; only train without ``options.evaluate``.
        out: the run's folder.
        options: how to compute it.
        stop: called after every step; True saves and stops, and must stay True: several processes on GPUs agree on
            stopping after every 20th step.
        log: called with a line for every epoch.

    Returns:
        What ``result.json`` holds.

    Raises:
        InputError: ``out`` holds a run and ``resume`` is off, or a run of another recipe, data set or init.
        DatasetError: there are no training images, or no test split that can be scored.
        GpuError: the step cannot be recorded in a CUDA graph.
        StoppedError: ``stop`` returned True; everything is saved.
        TrainingError: a loss or gradient is not finite; the last good checkpoint is kept.
    """
    out, device = Path(out), default_device()
    dataset = replace(dataset, same_camera=recipe.evaluation.same_camera)
    if options.evaluate:
        _check_test_split(dataset)
    # Every batch has the same shape.
    kernels = fastest_convolutions() if device.type == "cuda" else nullcontext()
    with joined_processes(device) as processes, kernels:
        return _train_in(processes, recipe, dataset, out, options, stop, log)


def _train_in(
    processes: Processes,
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    options: TrainingOptions,
    stop: Callable[[], bool],
    log: Callable[[str], None],
) -> dict[str, Any]:
    """:func:`train` in a group of processes, which nothing that is made here may outlive."""
    device = default_device()
    _check_world(recipe, processes)
    saved = saved_run(out, recipe, options.init, dataset.name, resume=options.resume)
    if processes.is_first:
        remove_leftovers(out)
    finished = saved is not None and saved["run"]["epoch"] == recipe.schedule.num_epochs
    if finished and (out / RESULT).is_file():
        result: dict[str, Any] = json.loads((out / RESULT).read_text())
        return result if processes.is_first else {}
    if processes.is_first:
        for warning in data_warnings(dataset, evaluate=options.evaluate):
            log(f"warning: {warning}")
    images = _load_images(recipe, dataset, options, device, processes)
    learner, progress = _start(recipe, images.num_classes, options, device, processes, saved)
    run = _Run(recipe, dataset, out, options, learner, images, processes, progress, stop, log)
    run.train_remaining_epochs()
    return run.finish() if processes.is_first else {}


def _check_test_split(dataset: Dataset) -> None:
    """Say before the first step, not after a night, that there will be no scores."""
    if not (dataset.query and dataset.gallery):
        raise DatasetError(
            "the data set has no test split to evaluate on: expected query and gallery images. Train without: "
            "--no-evaluation"
        )
    try:
        check_scorable(dataset)
    except DatasetError as error:
        raise DatasetError(f"{error} --no-evaluation trains without scores.") from error


def _load_images(
    recipe: Recipe, dataset: Dataset, options: TrainingOptions, device: torch.device, processes: Processes
) -> TrainImages:
    with progress_bar("decoding", len(dataset.train)) as show:
        return load_train_images(
            dataset.train,
            recipe.images.height_px,
            recipe.images.width_px,
            device,
            workers=options.workers,
            progress=show if processes.is_first else None,
        )


def _start(
    recipe: Recipe,
    num_classes: int,
    options: TrainingOptions,
    device: torch.device,
    processes: Processes,
    saved: dict[str, Any] | None,
) -> tuple[Learner, Progress]:
    """A learner with its first weights, or with those that a run saved; and where the run is."""
    baseline = build_model(recipe, num_classes)
    # What cannot be exported is not worth a night of training.
    graph_from_checkpoint(checkpoint_in_memory(baseline, recipe.images.height_px, recipe.images.width_px))
    if saved is None:
        initialize(baseline, options.init)
    learner = Learner(
        baseline,
        recipe,
        device,
        processes=processes,
        autocast=torch.bfloat16 if chosen_precision(options.precision, device) == "bf16" else None,
        compiled=options.compiled,
    )
    if saved is None:
        return learner, Progress(0, 0, [0.0] * len(METRICS), [])
    learner.load(saved["state_dict"], saved["state"]["learner"])
    return learner, Progress(**saved["state"]["progress"])


@dataclass
class _Run:
    """One process's part in a run."""

    recipe: Recipe
    dataset: Dataset
    out: Path
    options: TrainingOptions
    learner: Learner
    images: TrainImages
    processes: Processes
    progress: Progress
    stop: Callable[[], bool]
    log: Callable[[str], None]
    test_images: TestImages | None = None
    stopping: bool = False

    def __post_init__(self) -> None:
        self.saver = Saver(self._write, self.options.save_every_s)
        self.step = whole_step(self.learner, self.images, self.recipe, cuda_graph=self.options.cuda_graph)

    def train_remaining_epochs(self) -> None:
        """Train until the last epoch is done and saved."""
        progress, is_first = self.progress, self.processes.is_first
        scalars = open_scalars(self.out if is_first else None, progress.epoch)
        with closing(scalars), finished_at_the_end(self.saver):
            first_epoch = progress.epoch + 1
            self._evaluate_if_due()
            while progress.epoch < self.recipe.schedule.num_epochs:
                record = self.next_epoch()
                scalars.add(record)
                if self.step is not None and is_first and record["epoch"] == first_epoch:
                    self.log(f"steps: {steps_text(self.step)}")

    def next_epoch(self) -> dict[str, Any]:
        """Train one epoch to its end, save it, evaluate it when that is due, and return its record."""
        recipe, progress = self.recipe, self.progress
        epoch = progress.epoch + 1
        record = self._train_epoch(epoch)
        progress.history.append(record)
        progress.finish_epoch()
        if self.processes.is_first:
            self._save_epoch(
                [f"epoch-{epoch:03d}.pth"] if epoch % recipe.checkpoint_every_epochs == 0 else []
            )
            self._evaluate_if_due()
            self.log(epoch_line(record, recipe.schedule.num_epochs))
        self.processes.wait()
        return record

    def finish(self) -> dict[str, Any]:
        """Draw the plots and write ``result.json``, and return what that holds."""
        history = self.progress.history
        best = best_epoch(history)
        content = {
            **history[-1].get("evaluation", {}),
            "best": best and {"epoch": best["epoch"], **best["evaluation"]},
            "recipe": asdict(self.recipe),
            **self._facts(),
            "num_train": len(self.dataset.train),
            "num_train_pids": self.images.num_classes,
            **costs(history),
            "execution": self._execution(),
            **here(),
        }
        weights = load_checkpoint(self.out / (BEST if best else LAST))
        write_plots(self.out, self.recipe, self.dataset, weights, history)
        return write_measurement(self.out / RESULT, TrainingResult.model_validate(content))

    def _train_epoch(self, epoch: int) -> dict[str, Any]:
        recipe, progress, device = self.recipe, self.progress, self.images.pixels.device
        rate = learning_rate(epoch, recipe.schedule, warmup=recipe.tricks.warmup)
        plan = plan_of_epoch(self.images, recipe, epoch)
        num_steps = len(plan)
        between_checks = steps_between_checks(device)
        checked_at_s = time.perf_counter()
        waits: list[Callable[[], float]] = []
        pending: list[torch.Tensor] = []
        self.learner.set_learning_rate(rate)
        with (
            without_tf32(chosen_precision(self.options.precision, device), device),
            progress_bar(f"epoch {epoch}/{recipe.schedule.num_epochs}", num_steps) as show,
        ):
            for metrics, waited_s in self._steps(epoch, plan):
                pending.append(metrics)
                waits.append(waited_s)
                progress.step += 1
                stop_here = self.stop()
                # One process stops at once; several agree on stopping where they wait for each other anyway.
                at_once = self.stopping or (stop_here and self.processes.world_size == 1)
                if len(pending) < between_checks and progress.step < num_steps and not at_once:
                    continue
                self._add_metrics(pending, epoch)
                now_s = time.perf_counter()
                progress.seconds += now_s - checked_at_s
                progress.waited_s += sum(wait() for wait in waits)
                checked_at_s, pending, waits = now_s, [], []
                if show and self.processes.is_first:
                    show(progress.step)
                self.stopping = self.processes.any(stop_here)
                if self.stopping and progress.step < num_steps:
                    self._save_and_stop(epoch, num_steps)
                if self.processes.is_first and self.saver.is_due and progress.step < num_steps:
                    self.saver.save(self._snapshot())
        num_images = num_steps * recipe.batch.num_pids * recipe.batch.num_instances
        means = (
            self.processes.mean(torch.tensor(progress.sums, dtype=torch.float64, device=device)) / num_steps
        )
        return {
            "epoch": epoch,
            "learning_rate": rate,
            **dict(zip(METRICS, means.tolist(), strict=True)),
            "seconds": progress.seconds,
            "images_per_s": num_images / progress.seconds,
            "data_wait_share": progress.waited_s / progress.seconds,
        }

    def _steps(
        self, epoch: int, plan: Sequence[Indices]
    ) -> Iterator[tuple[torch.Tensor, Callable[[], float]]]:
        """Run the steps of an epoch that are left: the metrics of each, and the seconds that it waited for data."""
        recipe, processes, first = self.recipe, self.processes, self.progress.step
        if self.step is not None:
            yield from steps_of_epoch(self.step, recipe, epoch, plan, first, processes)
            return
        batches = batches_of_epoch(
            self.images,
            recipe,
            epoch,
            plan,
            first=first,
            rank=processes.rank,
            world_size=processes.world_size,
            workers=self.options.workers,
        )
        for place, batch in enumerate(batches, start=first):
            torch.manual_seed(seed_of_step(recipe, epoch, place))
            yield self.learner.step(batch.images, batch.labels), partial(float, batch.waited_s)

    def _add_metrics(self, pending: list[torch.Tensor], epoch: int) -> None:
        """Add the metrics of the last steps to the epoch's sums, if all of them are finite."""
        values = torch.stack(pending).double().cpu()
        first_step = self.progress.step - len(pending) + 1
        for step, row in enumerate(values.tolist(), start=first_step):
            found = dict(zip(METRICS, row, strict=True))
            if not all(abs(value) < float("inf") for value in row):
                kept = self.out / LAST
                advice = (
                    f"The last good checkpoint is {kept}."
                    if self.progress.epoch or kept.exists()
                    else "No epoch was finished before."
                )
                raise TrainingError(
                    f"epoch {epoch}, step {step}: "
                    + ", ".join(f"{name} {value:.4g}" for name, value in found.items())
                    + f". Losses and gradients must be finite. {advice} Lower schedule.learning_rate, or check the "
                    "first weights."
                )
            self.progress.sums = [total + value for total, value in zip(self.progress.sums, row, strict=True)]

    def _save_and_stop(self, epoch: int, num_steps: int) -> None:
        if self.processes.is_first:
            self.saver.save(self._snapshot())
            self.saver.finish()
        self.processes.wait()
        raise StoppedError(
            f"stopped in epoch {epoch} after step {self.progress.step} of {num_steps}; {self.out / LAST} holds "
            "everything. Run the same command with --resume to continue."
        )

    @property
    def _is_evaluation_due(self) -> bool:
        """Whether the last epoch is to be scored, and is not yet: its evaluation may have failed in an earlier run."""
        epoch, history = self.progress.epoch, self.progress.history
        schedule = self.recipe.evaluation.every_epochs, self.recipe.schedule.num_epochs
        is_end = epoch > 0 and self.progress.step == 0 and (epoch % schedule[0] == 0 or epoch == schedule[1])
        return is_end and self.options.evaluate and "evaluation" not in history[-1]

    def _evaluate_if_due(self) -> None:
        """Score the last epoch, which is saved, where that is due; and save its scores, and the best network."""
        if not (self._is_evaluation_due and self.processes.is_first):
            return
        best = best_epoch(self.progress.history)
        try:
            found = self._evaluate()
        except Exception as error:
            error.add_note(
                f"Epoch {self.progress.epoch} is saved: {self.out / LAST}. With --resume the same command scores it "
                "and continues; with --no-evaluation, too, it continues without scores."
            )
            raise
        self.progress.history[-1]["evaluation"] = found
        is_best = best is None or found["mAP"] > best["evaluation"]["mAP"]
        self.saver.save(self._snapshot(), [BEST] if is_best else [])

    def _evaluate(self) -> dict[str, Any]:
        images, device = self.recipe.images, self.images.pixels.device
        size = (images.height_px, images.width_px)
        count = len(self.dataset.query) + len(self.dataset.scored_gallery)
        on_gpu = device.type == "cuda" and (self.test_images or fits_on_gpu(self.dataset, *size, device))
        if on_gpu and self.test_images is None:
            with progress_bar("decoding", count) as show:
                self.test_images = load_test_images(
                    self.dataset, *size, device, workers=self.options.workers, progress=show
                )
        checkpoint = checkpoint_in_memory(self.learner.baseline, *size)
        with progress_bar("evaluating", count) as show:
            evaluation = evaluate_checkpoint(
                checkpoint, self.dataset, metric=self.recipe.metric, images=self.test_images, progress=show
            )
        return scores(evaluation)

    def _save_epoch(self, names: Sequence[str]) -> None:
        """Save an epoch that must not be lost, or when it is time; else keep its state in case of an error."""
        is_last = self.progress.epoch == self.recipe.schedule.num_epochs
        is_first_file = not (self.out / LAST).exists()
        if names or is_last or is_first_file or self._is_evaluation_due or self.saver.is_due:
            self.saver.save(self._snapshot(), names)
        else:
            self.saver.keep(self._snapshot())

    def _snapshot(self) -> Snapshot:
        learner, device = self.learner, self.images.pixels.device
        return snapshot(learner.baseline.state_dict(), learner.state(), asdict(self.progress), device)

    def _write(self, state: Snapshot, names: Sequence[str]) -> None:
        """Write what is kept of an epoch, then ``last.pth``, then the history: in the saver's thread."""
        state = state.on_cpu()
        run = {**self._facts(), "epoch": state.progress["epoch"]}
        resumable = {"learner": state.learner, "progress": state.progress}
        architecture = self.learner.baseline.architecture
        for name in (*names, LAST):
            more = resumable if name == LAST else None
            write_checkpoint(self.out / name, architecture, state.weights, self.recipe, run, more)
        write_json(self.out / HISTORY, state.progress["history"])

    def _execution(self) -> dict[str, Any]:
        """How the numbers were computed; a resumed run may compute them otherwise than the part before."""
        if not self.options.evaluate:
            evaluation = "none: --no-evaluation"
        elif self.test_images is None:
            evaluation = "fp32, images read from their files"
        else:
            evaluation = "fp32, images kept on the GPU"
        return {
            "precision": chosen_precision(self.options.precision, self.images.pixels.device),
            "compiled": self.options.compiled,
            "steps": steps_text(self.step),
            "evaluation": evaluation,
        }

    def _facts(self) -> dict[str, Any]:
        """What made the weights beside the recipe."""
        return {"init": init_text(self.options.init), "dataset": self.dataset.name}


def _check_world(recipe: Recipe, processes: Processes) -> None:
    if recipe.batch.num_pids % processes.world_size:
        raise InputError(
            f"batch.num_pids {recipe.batch.num_pids} cannot be divided among {processes.world_size} processes. Set "
            "it to a multiple."
        )
