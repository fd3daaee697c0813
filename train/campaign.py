"""The runs whose results are kept under ``train/results``: table 1 in parts, each of some minutes on a large GPU."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from reidexport.data import load_dataset
from reidexport.errors import InputError, StoppedError
from train.dataset import DataSource, load_train_split
from train.parts import write_parts
from train.recipe import load_recipe
from train.tables import TABLES, PaperRow, run_name, run_table
from train.training import TrainingOptions, train

_BACKBONE = "model.backbone=resnet18"


def campaign_parts() -> dict[str, PaperRow]:
    """The rows of table 1 by the names of their parts, the strong baseline first."""
    *others, strong_baseline = TABLES[1].rows
    rows = (strong_baseline, *others)
    return {f"{place}-{row.recipe.removeprefix('+')}": row for place, row in enumerate(rows, start=1)}


def run_campaign(
    source: DataSource,
    out: Path,
    options: TrainingOptions,
    *,
    results: Path,
    only: str | None = None,
    assignments: Sequence[str] = (),
    stop: Callable[[], bool] = lambda: False,
    log: Callable[[str], None] = lambda _: None,
) -> str:
    """Train the rows of table 1 with a ResNet-18, part after part, and write the results of each in small files.

    What is done is not done again. Of a part that is stopped, what it has come to is written.

    Args:
        source: Market-1501; without ``options.evaluate`` its training split is enough.
        out: folder of the runs.
        options: how to run; ``resume`` should be on.
        results: gets a folder for each part, of files under 16 MiB, as :func:`train.parts.write_parts` writes them; and
            the table, once all parts are done and can be scored.
        only: the one part to run, of :func:`campaign_parts`.
        assignments: changes to every recipe, as for ``--set``, such as a tiny budget to try it.
        stop: called after every step.
        log: called with lines about what is being done.

    Returns:
        Table 1 in Markdown, where it could be scored; else what was written, and how to score it.

    Raises:
        InputError: there is no part ``only``.
        StoppedError: ``stop`` returned True; the same call continues.
    """
    parts = campaign_parts()
    if only is not None and only not in parts:
        raise InputError(f"there is no part {only!r} in the campaign. Parts: {', '.join(parts)}")
    images = load_dataset(*source) if options.evaluate else load_train_split(*source)
    changes, folder = (_BACKBONE, *assignments), out / "table-1"
    chosen = [only] if only else list(parts)
    for name in chosen:
        log(f"part {name}")
        run = folder / "runs" / run_name(parts[name])
        recipe = load_recipe(parts[name].recipe, changes)
        try:
            train(recipe, images, run, options, stop=stop, log=log)
        except StoppedError as error:
            write_parts(run, results / name)
            raise StoppedError(f"stopped in part {name}: run the same command again to continue") from error
        write_parts(run, results / name)
        if stop() and name != chosen[-1]:
            raise StoppedError(f"stopped after part {name}: run the same command again to continue")
    if only or not options.evaluate:
        return _how_to_score(results, chosen)
    markdown = run_table(1, source, folder, options, assignments=changes, stop=stop, log=log)
    for name in ("table-1.json", "table-1.md"):
        shutil.copy(folder / name, results / name)
    return markdown


def _how_to_score(results: Path, names: Sequence[str]) -> str:
    lines = [f"{name}: {results / name}" for name in names]
    joined = f"python -m train join {results / names[0]} -o {names[0]}.pth"
    return "\n".join([*lines, f"To score one: {joined}; reidexport eval {names[0]}.pth --data ROOT", ""])
