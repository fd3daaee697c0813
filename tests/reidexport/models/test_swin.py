"""Swin transformers, one place of a map at a time."""

import numpy as np
import pytest
import torch

from reidexport.models.swin import (
    WINDOW,
    PatchMerging,
    SemanticEmbedding,
    SwinStem,
    WindowAttention,
    from_windows,
    relative_positions,
    shift_mask,
    windows,
)


@pytest.mark.parametrize("shifted", [False, True])
def test_windowed_attention_in_loops(*, shifted: bool) -> None:
    """Each place attends to those of its window that were its neighbors, with the bias of the offset between them."""
    torch.manual_seed(0)
    attention = WindowAttention(64, shifted=shifted).double()
    torch.nn.init.normal_(attention.relative_position_bias_table)
    height, width, shift = 9, 15, 3 if shifted else 0
    image = torch.randn(1, height, width, 64, dtype=torch.float64)
    down, across = 14, 21  # zeros are added, and attended to
    full = torch.zeros(down, across, 64, dtype=torch.float64)
    full[:height, :width] = image[0]
    queries, keys, values = attention.qkv(full).detach().reshape(down, across, 3, 2, 32).unbind(2)
    found = attention(image)[0]

    def window(y: int, x: int) -> tuple[int, int, int, int]:
        """A place's window behind the shift, and its region there: windows at the end also hold the start."""
        y, x = (y - shift) % down, (x - shift) % across
        regions = [int(shift > 0 and place >= side - shift) for place, side in ((y, down), (x, across))]
        return y // WINDOW, x // WINDOW, regions[0], regions[1]

    table = attention.relative_position_bias_table.detach().reshape(13, 13, 2)
    for y, x in ((0, 0), (2, 2), (3, 3), (4, 14), (8, 9), (8, 14)):
        others = [(v, u) for v in range(down) for u in range(across) if window(v, u) == window(y, x)]
        attended = torch.zeros(2, 32, dtype=torch.float64)
        total = torch.zeros(2, dtype=torch.float64)
        for v, u in others:
            offset = [
                (mine - shift) % side % WINDOW - (its - shift) % side % WINDOW + WINDOW - 1
                for mine, its, side in ((y, v, down), (x, u, across))
            ]
            share = ((queries[y, x] * keys[v, u]).sum(1) / 32**0.5 + table[offset[0], offset[1]]).exp()
            attended += share[:, None] * values[v, u]
            total += share
        wanted = attention.proj((attended / total[:, None]).flatten())
        assert torch.allclose(found[y, x], wanted, atol=1e-9)


def test_windows_come_back() -> None:
    """Cutting a map into windows and joining them gives the map; a window holds 7x7 neighbors, row by row."""
    image = torch.arange(2 * 14 * 21 * 3.0).reshape(2, 14, 21, 3)
    parts = windows(image)
    assert parts.shape == (2, 6, 49, 3)
    assert torch.equal(parts[1, 4], image[1, 7:, 7:14].reshape(49, 3))
    assert torch.equal(from_windows(parts, 14, 21), image)


def test_relative_positions_run_from_the_upper_left() -> None:
    """Row 0 of the table is of the place furthest down and right as seen from the other, row 168 the reverse."""
    index = relative_positions()
    assert (index[0, 48], index[48, 0], index[0, 0], index[1, 0], index[7, 0]) == (0, 168, 84, 85, 97)
    assert np.array_equal(np.unique(index), np.arange(169))


def test_shift_mask_parts_only_the_last_windows() -> None:
    """Windows inside see all of their places; those at the end see their own side of the border only."""
    mask = shift_mask(14, 14)
    assert mask.shape == (4, 1, 49, 49)
    assert not mask[0].any()
    corner = mask[3, 0].reshape(7, 7, 7, 7)
    assert corner[0, 0, 3, 3] == 0  # both before the border
    assert corner[0, 0, 4, 0] == corner[0, 0, 0, 4] == corner[6, 0, 0, 6] == -100


def test_patch_merging_takes_channels_first() -> None:
    """The four places of a square lie together for each channel; an odd side is padded by zeros."""
    torch.manual_seed(0)
    merging = PatchMerging(3).double()
    torch.nn.init.normal_(merging.norm.weight)
    image = torch.randn(1, 3, 4, 3, dtype=torch.float64)
    found = merging(image)
    assert found.shape == (1, 2, 2, 6)
    square = torch.stack([image[0, 2, 2], image[0, 2, 3], torch.zeros(3), torch.zeros(3)]).T.flatten()
    assert torch.allclose(found[0, 1, 1], merging.reduction(merging.norm(square)))


def test_stem_pads_below_and_to_the_right() -> None:
    """Images whose sides are no multiple of 4 px get zeros there."""
    torch.manual_seed(0)
    stem, image = SwinStem(8), torch.randn(2, 3, 6, 9)
    larger = torch.zeros(2, 3, 8, 12)
    larger[:, :, :6, :9] = image
    assert stem(image).shape == (2, 2, 3, 8)
    assert torch.equal(stem(image), stem(larger))


def test_semantic_embedding_is_upstreams_formula() -> None:
    """X · softplus(w(λ, 1 - λ)) + b(λ, 1 - λ), with the two linear layers called as upstream calls them."""
    embedding = SemanticEmbedding(4, 0.3)
    x, weights = torch.randn(2, 3, 5, 4), torch.tensor([0.3, 0.7])
    wanted = x * (1 + embedding.scale(weights).exp()).log() + embedding.shift(weights)
    assert torch.allclose(embedding(x), wanted, atol=1e-6)
