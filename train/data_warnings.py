"""What is doubtful about a data set: trained, it would cost a night or give scores that mean little."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from reidexport.data import Dataset, ImageRecord
from reidexport.data.same_images import copies, image_numbers
from reidexport.evaluation.protocol import copy_warnings


def data_warnings(dataset: Dataset, *, evaluate: bool) -> Iterator[str]:
    """In words: persons with one image; and with ``evaluate`` what the training and the test split share.

    Raises:
        ImageError: a file cannot be read.
    """
    counts = Counter(record.pid for record in dataset.train)
    single = [record for record in dataset.train if counts[record.pid] == 1]
    if single:
        yield (
            f"{len(single)} of {len(counts)} persons have one training image (first {single[0].path}): batches repeat "
            "it, and triplets learn nothing from that. Add images, or leave these persons out."
        )
    if evaluate:
        yield from _overlap(dataset)
        yield from copy_warnings(dataset)


def _overlap(dataset: Dataset) -> Iterator[str]:
    train, test = dataset.train, (*dataset.query, *dataset.scored_gallery)
    pairs = copies(*image_numbers(_paths(train), _paths(test)))
    if pairs:
        place, other = pairs[0]
        yield (
            f"{len({place for place, _ in pairs})} of {len(train)} training images are in the test split too, "
            f"byte for byte (first {train[place].path} and {test[other].path}): scores on them say "
            "nothing. Remove the copies."
        )
    known = {record.pid: record.path for record in reversed(train) if record.pid > 0}
    seen = {record.pid: record.path for record in reversed(dataset.query)}
    shared = sorted(known.keys() & seen.keys())
    if shared:
        yield (
            f"{len(shared)} of {len(seen)} persons of the queries are in the training split too (first person "
            f"{shared[0]}: {known[shared[0]]} and {seen[shared[0]]}): scores are of persons that the network knows, "
            "and higher than those of others. Divide persons, not images; where each split counts its persons anew, "
            "renumber one."
        )


def _paths(records: tuple[ImageRecord, ...]) -> tuple[Path, ...]:
    return tuple(record.path for record in records)
