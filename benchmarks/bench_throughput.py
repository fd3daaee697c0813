"""How many images a second does an artifact answer, and which share is that of what the machine can do?"""

from functools import partial

import pytest

from benchmarks.comparison import Compare
from benchmarks.operations import operations_per_image, peak
from benchmarks.subjects import Subject, device
from benchmarks.turns import calls_in_a_row, rounded

_PEERS = "same pixels, batch, threads and device, all warm"


@pytest.mark.parametrize("batch_size", [1, 8, 32])
def test_offline(compare: Compare, subject: Subject, batch_size: int, quick: bool) -> None:
    """Batch after batch, against the vendors' own calls, torch eager and torch.compile."""
    if quick and batch_size == 32:
        pytest.skip("quick: small batches only")
    pixels = subject.pixels(batch_size)
    own = subject.own_input(pixels)
    ours = subject.session.run(pixels)
    sides = {name: partial(embed, own) for name, embed in subject.bare_peers().items()}
    sides |= {name: partial(embed, pixels) for name, embed in subject.torch_peers(compiled=not quick).items()}
    for side in sides.values():
        subject.check(side(), ours)
    limit = peak(subject.precision) if _has_limit(subject) else None
    row = compare(
        f"throughput of {subject}, batch {batch_size}",
        f"uint8 pixels in memory to float32 features; {_PEERS}; each turn is calls in a row for 0.3 s",
        lambda: subject.session.run(pixels),
        sides,
        measure=partial(calls_in_a_row, at_least_s=0.02 if quick else 0.3),
    )
    images_per_s = batch_size / row["seconds"]["reidexport"]["median"]
    row |= subject.about(batch_size=batch_size, images_per_s=rounded(images_per_s))
    if limit:
        operations = operations_per_image(subject.path)
        limit = max(limit, peak(subject.precision))
        row["operations_per_image"] = operations
        row["peak_gop_per_s"], row["peak_product"] = rounded(limit.gop_per_s), limit.product
        if operations:
            row["limit_images_per_s"] = rounded(1e9 * limit.gop_per_s / operations)
            if isinstance(row["ratios"], dict):
                row["share_of_limit"] = rounded(images_per_s * operations / (1e9 * limit.gop_per_s))


def _has_limit(subject: Subject) -> bool:
    """On a GPU the peak is another's to measure: see the GPU check."""
    return device() == "cpu" and subject.path.suffix == ".onnx"
