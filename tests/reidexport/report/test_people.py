"""Ranked lists, and features in two dimensions."""

import numpy as np

from reidexport.data import Dataset
from reidexport.evaluation.scoring import Evaluation
from reidexport.metrics.distances import distmat_from_features
from reidexport.report.people import principal_components


def test_ranked_lists_leave_junk_out(drawn_dataset: Dataset, evaluation: Evaluation) -> None:
    """As a loop over all gallery images says it."""
    rows, distmat = evaluation.nearest(range(5), 10)
    everything = distmat_from_features(evaluation.q_feats, evaluation.g_feats, metric=evaluation.metric)
    for number, query in enumerate(evaluation.query[:5]):
        distances, expected = everything[number], list[int]()
        for row in sorted(range(len(distances)), key=lambda row: distances[row]):
            image = evaluation.gallery[row]
            if not (image.pid == query.pid and image.camid == query.camid) and len(expected) < 10:
                expected.append(row)
        assert rows[number].tolist() == expected
        np.testing.assert_allclose(distmat[number], distances[expected], rtol=1e-5, atol=1e-6)


def test_components_are_those_of_the_covariance() -> None:
    """Projected variances are the two largest eigenvalues, and shares are of the trace."""
    feats = np.random.default_rng(0).normal(size=(50, 8)) * np.arange(1, 9)
    places, shares = principal_components(feats)
    values = np.linalg.eigvalsh(np.cov(feats.T))[::-1]
    np.testing.assert_allclose(places.var(axis=0, ddof=1), values[:2])
    np.testing.assert_allclose(shares, values[:2] / values.sum())
