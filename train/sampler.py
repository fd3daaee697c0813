"""Batches of P identities × K images (paper, 2)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reidexport.errors import DatasetError

Indices = NDArray[np.int64]


def epoch_batches(
    labels: Sequence[int], num_pids: int, num_instances: int, rng: np.random.Generator
) -> list[Indices]:
    """The batches of one epoch, as the authors' sampler draws them.

    Every identity's images are shuffled and cut into groups of K; an identity of fewer than K images makes one group
    drawn with replacement, and what is left over of the others waits for another epoch. Batches hold one group each
    of P random identities, until fewer than P have groups left.

    Args:
        labels: the class of every image.
        num_pids: P.
        num_instances: K.
        rng: decides everything.

    Returns:
        Arrays of P·K indices into ``labels``, the K of one identity side by side.

    Raises:
        DatasetError: there are fewer than P identities.
    """
    order = np.argsort(labels, kind="stable")
    _, firsts = np.unique(np.asarray(labels)[order], return_index=True)
    groups = [_groups(indices, num_instances, rng) for indices in np.split(order, firsts[1:])]
    if len(groups) < num_pids:
        raise DatasetError(
            f"the training split has {len(groups)} identities, a batch needs {num_pids}: set batch.num_pids lower"
        )
    available = list(range(len(groups)))
    batches = []
    while len(available) >= num_pids:
        chosen = rng.choice(len(available), num_pids, replace=False)
        batches.append(np.concatenate([groups[available[place]].pop() for place in chosen]))
        available = [identity for identity in available if groups[identity]]
    return batches


def _groups(indices: Indices, size: int, rng: np.random.Generator) -> list[Indices]:
    if len(indices) < size:
        return [rng.choice(indices, size)]
    shuffled = rng.permutation(indices)
    return [shuffled[start : start + size] for start in range(0, len(indices) - size + 1, size)]
