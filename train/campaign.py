"""The runs whose results are kept under ``train/results``: one command, resumable, for a machine with a GPU."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reidexport.datasets import load_dataset
from reidexport.errors import StoppedError
from train.recipe import load_recipe
from train.tables import run_table
from train.training import RESULT, RunOptions, train

# Seven rows of the whole schedule would take longer than the rest together.
_SHORT_SCHEDULE = ("schedule.num_epochs=30", "schedule.warmup_epochs=3", "schedule.decay_epochs=[10, 18]")


@dataclass(frozen=True)
class _Run:
    name: str
    backbone: str
    pretrained: bool


_RUNS = (
    _Run("strong-baseline-resnet50-from-random", "resnet50", False),
    _Run("strong-baseline-mobilenet_v2-from-imagenet", "mobilenet_v2", True),
)


def run_campaign(
    root: Path,
    out: Path,
    options: RunOptions,
    *,
    assignments: Sequence[str] = (),
    dataset: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Train ``strong-baseline`` with two backbones, then table 1 with the one that ImageNet initialised.

    ``out/results`` gets the JSON of every finished part; what is done is not done again.

    Args:
        root: Market-1501, or a folder that holds it.
        out: folder of the runs.
        options: ``init`` are MobileNetV2's first weights; ``resume`` should be on.
        assignments: changes to every recipe, as for ``--set``, such as a tiny budget to try it.
        dataset: which data set, where there are several.
        stop: asked after every step.
        say: called with lines about what goes on.

    Returns:
        Table 1 in Markdown.

    Raises:
        StoppedError: ``stop`` said so; the same call goes on.
    """
    images = load_dataset(root, dataset)
    results = out / "results"
    results.mkdir(parents=True, exist_ok=True)
    for place, run in enumerate(_RUNS, start=1):
        say(f"run {place} of {len(_RUNS)}: {run.name}")
        recipe = load_recipe("strong-baseline", (f"model.backbone={run.backbone}", *assignments))
        first_weights = replace(options, init=options.init if run.pretrained else "none")
        try:
            train(recipe, images, out / "runs" / run.name, first_weights, stop=stop, say=say)
        except StoppedError as error:
            raise StoppedError(f"stopped in {run.name}: run the same command again to go on") from error
        shutil.copy(out / "runs" / run.name / RESULT, results / f"{run.name}.json")
    changes = ("model.backbone=mobilenet_v2", *_SHORT_SCHEDULE, *assignments)
    markdown = run_table(
        1, root, out / "table-1", options, assignments=changes, dataset=dataset, stop=stop, say=say
    )
    for name in ("table-1.json", "table-1.md"):
        shutil.copy(out / "table-1" / name, results / name)
    return markdown
