"""What adapting to a site gives, by the scores of a data set whose people are known.

    python -m benchmarks.sites CHECKPOINT --data ROOT --json FILE             the data set is the site
    python -m benchmarks.sites CHECKPOINT --data ROOT --json FILE --planted   sites made of its crops

The first adapts to the train split, whose persons the test split does not have, and scores the whole test split. The
second changes crops in ten ways, adapts to those of some test persons' gallery, scores others, and judges the advice.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from reidruntime import open_session
from reidruntime.artifact.camera_profile import camera_profile_path

from benchmarks.planted_sites import (
    Change,
    blurred,
    changed_dataset,
    darker,
    loose,
    nearest,
    other_light,
    swapped,
    tight,
    two_broken,
    unchanged,
    write_crops,
)
from reidexport import evaluate, load_checkpoint
from reidexport.adaptation.adapt import AdaptationOptions, adapt
from reidexport.adaptation.crops import find_site_crops
from reidexport.checkpoint.loading import Checkpoint
from reidexport.data import Dataset, ImageRecord, load_dataset
from reidexport.errors import InputError
from reidexport.evaluation.scoring import score_features
from reidexport.progress import progress_bar
from reidexport.records.adaptation import AdaptationRecord, SiteRow, SitesRecord, SiteVerdict
from reidexport.records.base import here
from reidexport.records.reading import write_record

ADVISED = "as advised"
WAYS = {
    "as it is": AdaptationOptions(mix=0, standardize=False),
    "as it is, profile": AdaptationOptions(mix=0, standardize=True),
    "adapted": AdaptationOptions(mix=0.5, standardize=False),
    "adapted, profile": AdaptationOptions(mix=0.5, standardize=True),
}
# The change of the crops, and what the advice must name where scores are not all.
PLANTED: Mapping[str, tuple[Change, str]] = {
    "home": (unchanged, "Not needed"),
    "dusk": (darker, ""),
    "other light in each camera": (other_light, ""),
    "out of focus": (blurred, ""),
    "tight boxes": (tight, ""),
    "loose boxes": (loose, ""),
    "BGR": (swapped, "red and blue swapped"),
    "sampled without a filter": (nearest, ""),
    "two broken cameras": (two_broken, "Only cameras 2, 5"),
    "too few crops": (unchanged, "too few crops"),
}
_NUM_SCORED, _NUM_OF_SITE, _PER_CAMERA, _TOO_FEW = 100, 300, 128, 20
_ALLOWED_COST, _WORTH_GAINING = 0.003, 0.01  # of mAP


def main() -> None:
    """Adapt, score and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dataset")
    parser.add_argument("--json", type=Path, required=True, dest="file")
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("--network", action="append", help="which rows, at a real site; all if left out")
    options = parser.parse_args()
    checkpoint, dataset = load_checkpoint(options.checkpoint), load_dataset(options.data, options.dataset)
    record = SitesRecord(checkpoint=checkpoint.name, dataset=dataset.name, rows=(), **here())
    with TemporaryDirectory(prefix="sites-") as folder:
        if options.planted:
            for name in PLANTED:
                rows, verdict = _planted(checkpoint, dataset, name, Path(folder))
                record = record.model_copy(
                    update={"rows": (*record.rows, *rows), "verdicts": (*record.verdicts, verdict)}
                )
                print(verdict.site, "right" if verdict.is_right else "WRONG", file=sys.stderr)
                write_record(options.file, record)
        else:
            for row in _real(checkpoint, dataset, Path(folder), options.network):
                print(row, file=sys.stderr)
                record = record.model_copy(update={"rows": (*record.rows, row)})
                write_record(options.file, record)


def _real(
    checkpoint: Checkpoint, dataset: Dataset, folder: Path, chosen: list[str] | None
) -> Iterator[SiteRow]:
    """The whole test split, by networks that were adapted to the train split in all ways."""
    crops = find_site_crops(dataset.train[0].path.parent)
    ways = {ADVISED: AdaptationOptions()} | WAYS
    ways |= {
        "a network for each camera": AdaptationOptions(per_camera=True, standardize=False),
        "a network for each camera, profile": AdaptationOptions(per_camera=True, standardize=True),
    }
    for number, (name, options) in enumerate(ways.items()):
        if chosen and name not in chosen:
            continue
        output = folder / f"{number}.onnx"
        adapt(checkpoint, crops, output, options, progress_bar=progress_bar)
        yield from _scored(output, dataset, dataset.name, name, rerank=True)


def _planted(
    checkpoint: Checkpoint, dataset: Dataset, name: str, folder: Path
) -> tuple[list[SiteRow], SiteVerdict]:
    """One site of changed crops: all ways scored, and the advice judged."""
    change, wanted = PLANTED[name]
    persons = sorted({record.pid for record in dataset.query})
    scored = changed_dataset(_of_persons(dataset, persons[:_NUM_SCORED]), folder / f"{name} scored", change)
    theirs = set(persons[_NUM_SCORED : _NUM_SCORED + _NUM_OF_SITE])
    given = _some_of_each_camera([record for record in dataset.gallery if record.pid in theirs])
    if name == "too few crops":
        given = given[: _TOO_FEW * len({record.camid for record in given})]
    write_crops(given, folder / name, change)
    try:
        crops = find_site_crops(folder / name)
    except InputError as error:
        return [], SiteVerdict(
            site=name, is_right=bool(wanted) and wanted in str(error), wanted=wanted, advice=(str(error),)
        )
    rows = []
    for way, options in WAYS.items():
        adapt(checkpoint, crops, folder / f"{name}.onnx", options)
        rows += _scored(folder / f"{name}.onnx", scored, name, way)
    found = adapt(checkpoint, crops, folder / f"{name}.onnx")
    (advised,) = _scored(folder / f"{name}.onnx", scored, name, ADVISED)
    return [*rows, advised], _verdict(found, rows, advised, wanted)


def _verdict(found: AdaptationRecord, rows: list[SiteRow], advised: SiteRow, wanted: str) -> SiteVerdict:
    before, best = rows[0].mAP, max(row.mAP for row in rows)
    gained, to_gain = advised.mAP - before, best - before
    is_right = (
        gained >= -_ALLOWED_COST
        and (to_gain < _WORTH_GAINING or gained >= to_gain / 2)
        and any(wanted in line for line in (*found.advice, ""))
    )
    if wanted.startswith("Only cameras"):  # the words say what to do, which --per-camera then does
        is_right = gained >= -_ALLOWED_COST and any(wanted in line for line in found.advice)
    return SiteVerdict(
        site=advised.site,
        is_right=is_right,
        wanted=wanted,
        advice=found.advice,
        mix=found.mix,
        standardizes=found.standardizes,
        camera_share=found.camera_share,
        divergence=found.site.divergence,
        seconds=found.seconds,
    )


def _scored(
    output: Path, dataset: Dataset, site: str, network: str, *, rerank: bool = False
) -> Iterator[SiteRow]:
    """The scores of what was written; with ``rerank`` also re-ranked ones."""
    with open_session(output, cameras=camera_profile_path(output)) as session:
        found = evaluate(session, dataset)
    ranks = found.metrics.ranks
    yield SiteRow(site=site, network=network, rank1=ranks.rank1, mAP=ranks.mAP)
    if rerank:
        ranks = score_features(
            found.q_feats, found.g_feats, found.query, found.gallery, metric=found.metric, rerank=True
        ).ranks
        yield SiteRow(site=site, network=network, rank1=ranks.rank1, mAP=ranks.mAP, rerank=True)


def _of_persons(dataset: Dataset, persons: list[int]) -> Dataset:
    kept = set(persons)
    query = tuple(record for record in dataset.query if record.pid in kept)
    gallery = tuple(record for record in dataset.gallery if record.pid in kept)
    return replace(dataset, train=(), query=query, gallery=gallery)


def _some_of_each_camera(records: list[ImageRecord]) -> list[ImageRecord]:
    """In turn, as many of each camera."""
    by_camera = [
        np.random.default_rng(camid).permutation(
            np.array([record for record in records if record.camid == camid], object)
        )[:_PER_CAMERA]
        for camid in sorted({record.camid for record in records})
    ]
    return [record for turn in zip(*by_camera, strict=False) for record in turn]


if __name__ == "__main__":
    main()
