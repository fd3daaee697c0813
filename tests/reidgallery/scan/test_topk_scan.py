"""Scans: the nearest rows are among their candidates."""

import numpy as np
import pytest
from reidgallery.rows import GalleryRows, Question, row_norms
from reidgallery.scan import topk_scan
from reidruntime.artifact.manifest import Metric

from tests.standins.galleries import METRICS


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_no_candidate_scores_more_than_its_bound(metric: Metric, threads: int) -> None:
    """Of every scan, for many queries and few: the bounds hold, and the nearest rows are there, in order."""
    rng = np.random.default_rng(8)
    mix = rng.standard_normal((96, 96)) * np.geomspace(1, 0.001, 96)[:, None]
    rows = (rng.standard_normal((4300, 96)) @ mix).astype(np.float32)
    gallery = GalleryRows([rows[:2500], rows[2500:]], row_norms(rows, "rows"))
    projected = gallery.projected(threads)
    assert projected is not None
    for num_query in (2, 50):
        queries = rows[:num_query] + rng.standard_normal((num_query, 96)).astype(np.float32) / 10
        unrelated = np.full(num_query, -1), np.zeros(len(rows), np.int64)
        norms = row_norms(queries, "queries")
        everyone = np.ones(len(rows), np.bool_)
        question = Question(queries, norms, gallery, 5, metric, everyone, *unrelated)
        products = queries.astype(np.float64) @ rows.T.astype(np.float64)
        cosines = products / norms[:, None] / gallery.norms
        true = cosines if metric == "cosine" else products - gallery.norms**2 / 2
        for found in (
            topk_scan.float32_candidates(question, threads),
            topk_scan.projected_candidates(question, projected, threads),
            topk_scan.int8_candidates(question, gallery.coded(None), threads),
            topk_scan.int8_candidates(question, gallery.coded(projected), threads),
        ):
            assert found.is_whole.all()
            for own, scores in zip(np.split(np.arange(len(found.rows)), found.ends[1:-1]), true, strict=True):
                assert (np.diff(found.rows[own]) > 0).all()
                assert (found.highest[own] >= scores[found.rows[own]] - 1e-12).all()
                assert set(np.argsort(-scores)[:5]) <= set(found.rows[own])
