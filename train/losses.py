"""The three losses: L = L_ID + L_triplet + β L_C (paper, eq. 6)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def id_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross entropy of the identities, with smoothed labels (paper, eq. 2 and 3).

    The right class is given 1 - (N - 1)/N · ε and every other one ε/N, which is what torch's smoothing does.

    Args:
        logits: float (B, N), of f_i behind a BNNeck.
        labels: int64 (B,), in [0, N).
        smoothing: ε; 0 for plain cross entropy.

    Returns:
        The mean over the batch, a scalar.
    """
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing)


def triplet_loss(
    f_t: Tensor,
    labels: Tensor,
    margin: float,
    others: Tensor | None = None,
    other_labels: Tensor | None = None,
) -> Tensor:
    """Batch-hard triplet loss: each anchor with its farthest positive and its nearest negative (paper, eq. 4).

    Args:
        f_t: float (B, D), features in front of the neck, not normalized.
        labels: int64 (B,).
        margin: α.
        others: float (M, D), where to look for positives and negatives; None: in ``f_t`` itself.
        other_labels: int64 (M,), of ``others``.

    Returns:
        The mean of [d_p - d_n + α]_+ over the anchors, a scalar.
    """
    others, other_labels = (
        (f_t if others is None else others),
        (labels if other_labels is None else other_labels),
    )
    distances = euclidean_distances(f_t, others)
    same = labels[:, None] == other_labels[None]
    farthest_positive = distances.masked_fill(~same, -torch.inf).amax(1)
    nearest_negative = distances.masked_fill(same, torch.inf).amin(1)
    return functional.relu(farthest_positive - nearest_negative + margin).mean()


def euclidean_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Distances of (B, D) and (M, D) as (B, M); the gradient of a distance of zero is zero."""
    squares = rows.square().sum(1)[:, None] + columns.square().sum(1)[None] - 2 * rows @ columns.T
    return squares.clamp(min=1e-12).sqrt()


class CenterLoss(nn.Module):
    """Squared distances to the learned center of one's class (paper, eq. 5).

    Attributes:
        centers: float (num_classes, feature_dim), drawn from a normal distribution.
    """

    def __init__(self, num_classes: int, feature_dim: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(num_classes, feature_dim))

    def forward(self, f_t: Tensor, labels: Tensor) -> Tensor:
        """Float (B, D) and int64 (B,) → the mean over the batch of ‖f_t - c_y‖², a scalar."""
        return (f_t - self.centers[labels]).square().sum(1).mean()
