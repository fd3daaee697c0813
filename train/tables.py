"""The paper's tables as commands: which runs each compares, what of them it scores, and what the paper found."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reidruntime.artifact.manifest import Feature, Metric

from reidexport.checkpoint.loading import load_checkpoint
from reidexport.data import Dataset, load_dataset
from reidexport.errors import InputError, StoppedError
from reidexport.files import replaced_when_whole
from reidexport.progress import progress_bar
from reidexport.records.base import here
from train.checkpoints import LAST
from train.dataset import DataSource
from train.evaluation import evaluate_checkpoint, scores
from train.model import init_text
from train.recipe import load_recipe
from train.result import ScoredRow, TableResult, write_json, write_measurement
from train.training import TrainingOptions, train

_MARKET, _DUKE = "market1501", "dukemtmcreid"
# rank-1 and mAP of the paper in percent, by data set; table 3: by the data set trained on.
Published = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class PaperRow:
    """One row of a table.

    Attributes:
        label: as in the paper.
        recipe: which recipe's run is scored.
        published: the paper's figures.
        changes: of the recipe, as for ``--set``.
        feature: f_t or f_i; None: f_i where the recipe has a BNNeck.
        metric: None: the recipe's own.
        rerank: k-reciprocal re-ranking.
    """

    label: str
    recipe: str
    published: Published
    changes: tuple[str, ...] = ()
    feature: Feature | None = None
    metric: Metric | None = None
    rerank: bool = False


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper; ``crosses``: it is scored on another data set than the one trained on."""

    title: str
    rows: tuple[PaperRow, ...]
    crosses: bool = False


def _both(market: tuple[float, float], duke: tuple[float, float]) -> Published:
    return {_MARKET: market, _DUKE: duke}


def _batch(num_pids: int, num_instances: int, published: Published) -> PaperRow:
    changes = (f"batch.num_pids={num_pids}", f"batch.num_instances={num_instances}")
    # The row 16 x 4 is table 2's f_i with the Euclidean distance: so are the others, and those of table 6.
    return PaperRow(f"{num_pids} x {num_instances}", "+bnneck", published, changes, "f_i", "euclidean")


def _size(height_px: int, width_px: int, published: Published) -> PaperRow:
    changes = (f"images.height_px={height_px}", f"images.width_px={width_px}")
    return PaperRow(f"{height_px} x {width_px}", "+bnneck", published, changes, "f_i", "euclidean")


TABLES = {
    1: PaperTable(
        "Each trick added to the standard baseline, same domain",
        (
            PaperRow("Baseline-S", "standard-baseline", _both((87.7, 74.0), (79.7, 63.7))),
            PaperRow("+warmup", "+warmup", _both((88.7, 75.2), (80.6, 65.1))),
            PaperRow("+REA", "+rea", _both((91.3, 79.3), (81.5, 68.3))),
            PaperRow("+LS", "+ls", _both((91.4, 80.3), (82.4, 69.3))),
            PaperRow("+stride=1", "+stride1", _both((92.0, 81.7), (82.6, 70.6))),
            PaperRow("+BNNeck", "+bnneck", _both((94.1, 85.7), (86.2, 75.9))),
            PaperRow("+center loss", "strong-baseline", _both((94.5, 85.9), (86.4, 76.4))),
        ),
    ),
    2: PaperTable(
        "Features and metrics of BNNeck, without center loss",
        (
            PaperRow(
                "f (w/o BNNeck), Euclidean",
                "+stride1",
                _both((92.0, 81.7), (82.6, 70.6)),
                (),
                "f_t",
                "euclidean",
            ),
            PaperRow("f_t, Euclidean", "+bnneck", _both((94.2, 85.5), (85.7, 74.4)), (), "f_t", "euclidean"),
            PaperRow("f_t, cosine", "+bnneck", _both((94.2, 85.7), (85.5, 74.6)), (), "f_t", "cosine"),
            PaperRow("f_i, Euclidean", "+bnneck", _both((93.8, 83.7), (86.6, 73.0)), (), "f_i", "euclidean"),
            PaperRow("f_i, cosine", "+bnneck", _both((94.1, 85.7), (86.2, 75.9)), (), "f_i", "cosine"),
        ),
    ),
    3: PaperTable(
        "Each trick, scored in another domain",
        (
            PaperRow("Baseline", "standard-baseline", _both((24.4, 12.9), (34.2, 14.5))),
            PaperRow("+warmup", "+warmup", _both((26.3, 14.1), (39.7, 17.4))),
            PaperRow("+REA", "+rea", _both((21.5, 10.2), (32.5, 13.5))),
            PaperRow("+LS", "+ls", _both((23.2, 11.3), (36.5, 14.9))),
            PaperRow("+stride=1", "+stride1", _both((23.1, 11.8), (37.1, 15.4))),
            PaperRow("+BNNeck", "+bnneck", _both((26.7, 15.2), (47.7, 21.6))),
            PaperRow("+center loss", "strong-baseline", _both((27.5, 15.0), (47.4, 21.4))),
            PaperRow("-REA", "strong-baseline-no-rea", _both((41.4, 25.7), (54.3, 25.5))),
        ),
        crosses=True,
    ),
    4: PaperTable(
        "The strong baseline, and with k-reciprocal re-ranking (RK)",
        (
            PaperRow("Ours", "strong-baseline", _both((94.5, 85.9), (86.4, 76.4))),
            PaperRow("Ours (RK)", "strong-baseline", _both((95.4, 94.2), (90.3, 89.1)), rerank=True),
        ),
    ),
    5: PaperTable(
        "Batches of P identities x K images, without center loss",
        (
            _batch(8, 3, _both((92.6, 79.2), (84.4, 68.1))),
            _batch(8, 4, _both((92.9, 80.0), (84.7, 69.4))),
            _batch(8, 6, _both((93.5, 81.6), (85.1, 70.7))),
            _batch(8, 8, _both((93.9, 82.0), (85.8, 71.5))),
            _batch(16, 3, _both((93.8, 83.1), (86.8, 72.1))),
            _batch(16, 4, _both((93.8, 83.7), (86.6, 73.0))),
            _batch(16, 6, _both((94.0, 82.8), (85.1, 69.9))),
            _batch(16, 8, _both((93.1, 81.6), (86.7, 72.1))),
            _batch(32, 3, _both((94.5, 84.1), (86.0, 71.4))),
            _batch(32, 4, _both((93.2, 82.8), (86.5, 73.1))),
        ),
    ),
    6: PaperTable(
        "Image sizes, without center loss",
        (
            _size(256, 128, _both((93.8, 83.7), (86.6, 73.0))),
            _size(224, 224, _both((94.2, 83.3), (86.1, 72.2))),
            _size(384, 128, _both((94.0, 82.7), (86.4, 73.2))),
            _size(384, 192, _both((93.8, 83.1), (87.1, 72.9))),
        ),
    ),
}


def run_table(
    number: int,
    source: DataSource,
    out: Path,
    options: TrainingOptions,
    *,
    assignments: Sequence[str] = (),
    target: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    log: Callable[[str], None] = lambda _: None,
) -> str:
    """Train or reuse every run of a table, score its rows, and write ``table-N.json`` and ``table-N.md``.

    Runs go to ``out/runs``, where every table finds those of the others; what is done is not done again.

    Args:
        number: 1 to 6.
        source: which data set to train on.
        out: folder of runs and tables.
        options: how to run; ``resume`` should be on.
        assignments: changes to every recipe, as for ``--set``.
        target: of table 3: which data set below ``source.root`` to score on.
        stop: called after every step.
        log: called with lines about what is being done.

    Returns:
        The table in Markdown; empty in all processes but the first.

    Raises:
        InputError: table 3 without ``target``, or ``target`` for another one.
        StoppedError: ``stop`` returned True; the same call continues.
    """
    if TABLES[number].crosses != (target is not None):
        raise InputError(
            "table 3 is scored on another data set than the one trained on: pass --target, such as dukemtmcreid"
            if TABLES[number].crosses
            else f"table {number} is scored on the data set that is trained on: leave --target out"
        )
    trained_on = load_dataset(*source)
    scored_on = load_dataset(source.root, target) if target else trained_on
    rows = _scored_rows(number, trained_on, scored_on, out, options, assignments, stop, log)
    if not rows:
        return ""
    result = TableResult(
        table=number,
        title=TABLES[number].title,
        trained_on=trained_on.name,
        scored_on=scored_on.name,
        changes=tuple(assignments),
        init=init_text(options.init),
        rows=rows,
        **here(),
    )
    markdown = table_markdown(write_measurement(out / f"table-{number}.json", result))
    with replaced_when_whole(out / f"table-{number}.md") as temporary:
        temporary.write_text(markdown, encoding="utf-8")
    return markdown


def _scored_rows(
    number: int,
    trained_on: Dataset,
    scored_on: Dataset,
    out: Path,
    options: TrainingOptions,
    assignments: Sequence[str],
    stop: Callable[[], bool],
    log: Callable[[str], None],
) -> tuple[ScoredRow, ...]:
    """A table's rows; none where another process scores."""
    rows = TABLES[number].rows
    scored = []
    for place, row in enumerate(rows, start=1):
        log(f"table {number}, row {place} of {len(rows)}: {row.label}")
        folder = out / "runs" / run_name(row)
        recipe = load_recipe(row.recipe, (*row.changes, *assignments))
        if stop():
            raise StoppedError(_unfinished(place, len(rows)))
        try:
            train(recipe, trained_on, folder, options, stop=stop, log=log)
        except StoppedError as error:
            raise StoppedError(_unfinished(place, len(rows))) from error
        if int(os.environ.get("RANK", "0")) == 0:
            target = replace(scored_on, same_camera=recipe.evaluation.same_camera)
            found = _scores_of_run(folder, target, row, row.metric or recipe.metric)
            paper = _published(row, trained_on.name)
            scored.append(ScoredRow(**found, label=row.label, run=run_name(row), paper=paper))
    return tuple(scored)


def table_markdown(content: dict[str, Any]) -> str:
    """A table's rows in percent, beside the paper's; "-" where the paper has none for this data set."""
    trained, scored = content["trained_on"], content["scored_on"]
    where = f"{trained}" if trained == scored else f"trained on {trained}, scored on {scored}"
    changes = f" Changed: {', '.join(content['changes'])}." if content["changes"] else ""
    lines = [
        f"Table {content['table']}. {content['title']}: {where}. First weights: {content['init']}.{changes}",
        "",
        "| | rank-1 | mAP | paper's rank-1 | paper's mAP |",
        "|---|---|---|---|---|",
    ]
    for row in content["rows"]:
        paper = row["paper"] or {"rank1": None, "mAP": None}
        cells = [row["rank1"], row["mAP"], paper["rank1"], paper["mAP"]]
        lines.append(
            f"| {row['label']} | " + " | ".join("-" if c is None else f"{c:.1%}" for c in cells) + " |"
        )
    return "\n".join(lines) + "\n"


def run_name(row: PaperRow) -> str:
    """The folder of a row's run: its recipe and what is changed of it."""
    values = [change.partition("=")[2] for change in row.changes]
    return "-".join([row.recipe, "x".join(values)]) if values else row.recipe


def _scores_of_run(folder: Path, dataset: Dataset, row: PaperRow, metric: Metric) -> dict[str, Any]:
    """The scores of a finished run, from its folder where they were computed before."""
    key = "-".join([dataset.name, row.feature or "feature", metric, *(["rerank"] if row.rerank else [])])
    key += "-same-camera" if dataset.same_camera == "keep" else ""
    path = folder / f"scores-{key}.json"
    if path.exists():
        content: dict[str, Any] = json.loads(path.read_text())
        return content
    with progress_bar("evaluating", len(dataset.query) + len(dataset.scored_gallery)) as show:
        evaluation = evaluate_checkpoint(
            load_checkpoint(folder / LAST),
            dataset,
            metric=metric,
            feature=row.feature,
            rerank=row.rerank,
            progress=show,
        )
    write_json(path, scores(evaluation))
    return scores(evaluation)


def _published(row: PaperRow, trained_on: str) -> dict[str, float] | None:
    if trained_on not in row.published:
        return None
    rank1, mean_ap = row.published[trained_on]
    return {"rank1": rank1 / 100, "mAP": mean_ap / 100}


def _unfinished(place: int, num_rows: int) -> str:
    return (
        f"stopped in row {place} of {num_rows}; everything is saved. Run the same command again to continue."
    )
