"""Batches of P identities × K images."""

from collections import Counter

import numpy as np
import pytest

from reidexport.errors import DatasetError
from train.sampler import epoch_batches

# Identities of 9, 4, 2, 1, 5 and 8 images, in mixed order.
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(6), (9, 4, 2, 1, 5, 8)))


def slow_number_of_batches(
    sizes: list[int], num_pids: int, num_instances: int, chosen: list[list[int]]
) -> int:
    """Replay the identities that were chosen, one group at a time; how many batches there must be."""
    groups = [max(size // num_instances, 1) for size in sizes]
    done = 0
    while sum(left > 0 for left in groups) >= num_pids:
        for identity in chosen[done]:
            assert groups[identity] > 0
            groups[identity] -= 1
        done += 1
    return done


@pytest.mark.parametrize(("num_pids", "num_instances"), [(2, 2), (3, 4), (6, 3)])
def test_batches_hold_p_identities_of_k_images(num_pids: int, num_instances: int) -> None:
    """Each batch: P different identities, K images of each side by side."""
    for batch in epoch_batches(LABELS.tolist(), num_pids, num_instances, np.random.default_rng(1)):
        labels = LABELS[batch].reshape(num_pids, num_instances)
        assert (labels == labels[:, :1]).all()
        assert len(set(labels[:, 0].tolist())) == num_pids


@pytest.mark.parametrize(("num_pids", "num_instances"), [(2, 2), (3, 4), (6, 3)])
def test_an_epoch_ends_as_the_authors_does(num_pids: int, num_instances: int) -> None:
    """When fewer than P identities have a whole group left, and not before; no image twice but of small ones."""
    batches = epoch_batches(LABELS.tolist(), num_pids, num_instances, np.random.default_rng(2))
    sizes = np.bincount(LABELS).tolist()
    chosen = [LABELS[batch][::num_instances].tolist() for batch in batches]
    assert len(batches) == slow_number_of_batches(sizes, num_pids, num_instances, chosen)
    times = Counter(np.concatenate(batches).tolist())
    assert all(count == 1 for index, count in times.items() if sizes[LABELS[index]] >= num_instances)


def test_an_identity_of_fewer_than_k_images_is_drawn_with_replacement() -> None:
    """One image, four times in the batch."""
    (batch,) = epoch_batches([0, 1, 1, 1, 1], 2, 4, np.random.default_rng(0))
    assert Counter(batch.tolist()) == {0: 4, 1: 1, 2: 1, 3: 1, 4: 1}


def test_too_few_identities_are_refused() -> None:
    """The message says how many there are and what to set."""
    with pytest.raises(DatasetError, match=r"has 6 identities, a batch needs 7: set batch\.num_pids lower"):
        epoch_batches(LABELS.tolist(), 7, 2, np.random.default_rng(0))


def test_the_seed_decides() -> None:
    """The same generator draws the same batches, another one others."""
    first, again, other = (epoch_batches(LABELS.tolist(), 3, 2, np.random.default_rng(s)) for s in (5, 5, 6))
    assert [b.tolist() for b in first] == [b.tolist() for b in again]
    assert [b.tolist() for b in first] != [b.tolist() for b in other]
