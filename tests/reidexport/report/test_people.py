"""Ranked lists, and features in two dimensions."""

import numpy as np

from reidexport.data import Dataset
from reidexport.evaluation.scoring import Evaluation
from reidexport.gallery.contact_sheets import nearest_scored
from reidexport.report.people import principal_components


def test_ranked_lists_leave_junk_out(drawn_dataset: Dataset, evaluation: Evaluation) -> None:
    """As a loop over all gallery images says it."""
    distances = np.random.default_rng(0).random(len(evaluation.gallery))
    for query in evaluation.query[:5]:
        expected: list[int] = []
        for row in sorted(range(len(distances)), key=lambda row: distances[row]):
            image = evaluation.gallery[row]
            if not (image.pid == query.pid and image.camid == query.camid) and len(expected) < 10:
                expected.append(row)
        assert nearest_scored(query, evaluation.gallery, distances, 10) == expected


def test_components_are_those_of_the_covariance() -> None:
    """Projected variances are the two largest eigenvalues, and shares are of the trace."""
    feats = np.random.default_rng(0).normal(size=(50, 8)) * np.arange(1, 9)
    places, shares = principal_components(feats)
    values = np.linalg.eigvalsh(np.cov(feats.T))[::-1]
    np.testing.assert_allclose(places.var(axis=0, ddof=1), values[:2])
    np.testing.assert_allclose(shares, values[:2] / values.sum())
