"""The losses against slow, obvious versions in float64."""

import math

import pytest
import torch
from torch import Tensor

from train.losses import CenterLoss, euclidean_distances, id_loss, triplet_loss

LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2, 4])


def features(count: int = len(LABELS), dim: int = 5, seed: int = 0) -> Tensor:
    """Random float64 rows."""
    return torch.randn(count, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def slow_triplet(f_t: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, margin: float) -> float:
    """Equation (4) with loops: for every anchor the farthest positive and the nearest negative."""
    terms = []
    for anchor, label in zip(f_t, labels, strict=True):
        distances = [float((anchor - other).norm()) for other in others]
        positive = max(d for d, other in zip(distances, other_labels, strict=True) if other == label)
        negative = min(d for d, other in zip(distances, other_labels, strict=True) if other != label)
        terms.append(max(positive - negative + margin, 0.0))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_id_loss_is_equations_2_and_3(smoothing: float) -> None:
    """Minus the sum of q_i log p_i, with q as the paper writes it."""
    logits, num_classes = features(dim=6), 6
    expected = 0.0
    for row, label in zip(logits, LABELS.tolist(), strict=True):
        total = sum(math.exp(value) for value in row.tolist())
        for each, value in enumerate(row.tolist()):
            right = 1 - (num_classes - 1) / num_classes * smoothing
            q = right if each == label else smoothing / num_classes
            expected -= q * math.log(math.exp(value) / total)
    assert float(id_loss(logits, LABELS, smoothing)) == pytest.approx(expected / len(LABELS), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_triplet_loss_mines_as_a_loop_does(seed: int) -> None:
    """Equal to the slow version, for identities of one, two and three images."""
    f_t = features(seed=seed)
    expected = slow_triplet(f_t, LABELS, f_t, LABELS, 0.3)
    assert float(triplet_loss(f_t, LABELS, 0.3)) == pytest.approx(expected, rel=1e-6)


def test_triplet_loss_mines_among_others() -> None:
    """Anchors of one process, positives and negatives of all."""
    f_t, mine = features(), slice(2, 6)
    expected = slow_triplet(f_t[mine], LABELS[mine], f_t, LABELS, 0.3)
    assert float(triplet_loss(f_t[mine], LABELS[mine], 0.3, f_t, LABELS)) == pytest.approx(expected, rel=1e-6)


def test_identical_features_give_finite_gradients() -> None:
    """Two equal images of one person do not make the gradient of their distance infinite."""
    f_t = torch.ones(4, 3, requires_grad=True)
    torch.autograd.backward(triplet_loss(f_t, torch.tensor([0, 0, 1, 1]), 0.3))
    assert f_t.grad is not None
    assert torch.isfinite(f_t.grad).all()


def test_distances_are_those_of_the_rows() -> None:
    """Every pair, one by one."""
    rows, columns = features(3), features(4, seed=1)
    expected = torch.stack([torch.stack([(r - c).norm() for c in columns]) for r in rows])
    torch.testing.assert_close(euclidean_distances(rows, columns), expected)


def test_center_loss_is_equation_5_without_its_factors() -> None:
    """The mean over the batch of the squared distances: 2 / B times the paper's sum."""
    loss = CenterLoss(5, 5).double()
    f_t = features()
    equation_5 = 0.5 * sum(
        float((row - loss.centers[label]).square().sum())
        for row, label in zip(f_t, LABELS.tolist(), strict=True)
    )
    assert float(loss(f_t, LABELS).detach()) == pytest.approx(2 / len(LABELS) * equation_5, rel=1e-6)
