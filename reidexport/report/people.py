"""Sections about images, from an evaluation: ranked lists, and the features in two dimensions."""

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from reidexport.data import ImageRecord
from reidexport.evaluation.scoring import Evaluation
from reidexport.gallery.contact_sheets import person_and_camera, rgb_image
from reidexport.metrics.distances import unit_rows
from reidexport.report.blocks import Plot, Ranking, Section, Thumbnail
from reidexport.report.plots import NUM_PEOPLE, projection

_NUM_WORST, _NUM_RANDOM, _NUM_RANKS = 6, 6, 10
_SEED = 0
_LEFT_OUT = {
    "drop": "What the protocol leaves out (the query's person seen by the query's camera)",
    "keep": "What the evaluation leaves out (the query image itself, not its camera's others)",
}
_WIDTH_HEIGHT = (64, 128)
_JPEG_QUALITY = 82


def ranked_lists(evaluation: Evaluation, artifact: str) -> Section:
    """The queries with the lowest average precision, and some at random, each with its nearest gallery images."""
    precisions = evaluation.metrics.average_precisions
    valid = np.flatnonzero(np.isfinite(precisions))
    worst = valid[np.argsort(precisions[valid], kind="stable")][:_NUM_WORST]
    others = np.setdiff1d(valid, worst)
    count = min(_NUM_RANDOM, len(others))
    chosen = np.sort(np.random.default_rng(_SEED).choice(others, count, replace=False))
    reasons = ["among the worst"] * len(worst) + ["at random"] * len(chosen)
    shown = [*worst.tolist(), *chosen.tolist()]
    rankings = []
    for index, why, rows, distances in zip(
        shown, reasons, *evaluation.nearest(shown, _NUM_RANKS), strict=True
    ):
        query = evaluation.query[index]
        found = []
        for rank, (row, distance) in enumerate(zip(rows[rows >= 0], distances[rows >= 0], strict=True), 1):
            image = evaluation.gallery[row]
            sign, same = ("✓", "the same person") if image.pid == query.pid else ("✗", "another person")
            found.append(_thumbnail(image, sign, f"{distance:.3f}", f"rank {rank}: {same}"))
        first = evaluation.metrics.first_match_ranks[index]
        precision = f"average precision {precisions[index]:.1%}, first match at rank {first}"
        caption = f"{query.path.name}: {precision} ({why})"
        rankings.append(Ranking(caption, _thumbnail(query, "", "query", "query"), found))
    lead = (
        f"Queries of {evaluation.dataset} and the gallery images that {artifact} puts nearest to them: "
        f"the {len(worst)} with the lowest average precision, and {count} at random. ✓ is the same person, ✗ another. "
        f"{_LEFT_OUT[evaluation.same_camera]} is left out here too. "
        "Under each image: person, camera, distance."
    )
    return Section("Ranked lists", lead, rankings=rankings)


def _thumbnail(record: ImageRecord, sign: str, distance: str, description: str) -> Thumbnail:
    small = rgb_image(record.path).resize(_WIDTH_HEIGHT, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    label = person_and_camera(record.pid, record.camid)
    return Thumbnail(uri, sign, label, distance, f"{description}, {label}")


def features_of_some(evaluation: Evaluation, artifact: str) -> Section:
    """The features of the people with the most images, along their first two principal components."""
    records = (*evaluation.query, *evaluation.gallery)
    pids = np.array([record.pid for record in records])
    known, counts = np.unique(pids[pids > 0], return_counts=True)
    people = known[np.argsort(-counts, kind="stable")][:NUM_PEOPLE]
    chosen = np.flatnonzero(np.isin(pids, people))
    feats = np.concatenate((evaluation.q_feats, evaluation.g_feats))[chosen]
    if evaluation.metric == "cosine":
        feats = unit_rows(feats)
    places, shares = principal_components(feats)
    camids = [records[index].camid for index in chosen]
    svg = projection("projection", places, pids[chosen].tolist(), camids, shares)
    lead = (
        f"Features by {artifact} of the {len(people)} people of {evaluation.dataset} with the most images, along "
        "their first two principal components: linear, so nothing is pulled apart that was not. Colors and numbers "
        "are people, shapes are cameras."
    )
    plot = Plot(svg, f"{len(chosen)} images of {len(people)} people.")
    return Section("Features in two dimensions", lead, plots=[plot])


def principal_components(
    feats: npt.NDArray[np.floating],
) -> tuple[npt.NDArray[np.float64], tuple[float, float]]:
    """(N, D) -> the first two components of every row, float64 (N, 2), and the share of the variance of each."""
    centered = feats.astype(np.float64) - feats.mean(axis=0, dtype=np.float64)
    left, singular, _ = np.linalg.svd(centered, full_matrices=False)
    variance = singular**2
    first, second = variance[:2] / max(variance.sum(), np.finfo(np.float64).tiny)
    return left[:, :2] * singular[:2], (float(first), float(second))
