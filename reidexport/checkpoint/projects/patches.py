"""How the patches of an image lie, told by how many there are."""

from collections.abc import Sequence
from itertools import product

from reidexport.models.vit import PATCH_PX, TokenOptions, patch_grid

Size = tuple[int, int]


def layout_of(num_patches: int, sizes: Sequence[Size], strides_px: Sequence[int]) -> TokenOptions:
    """The likeliest layout of so many patches.

    Args:
        num_patches: position embeddings, less the class token's.
        sizes: (height, width) in pixels of a project's configurations, the likeliest first.
        strides_px: from patch to patch, likewise.

    Returns:
        Grid and stride of the first size that has so many patches. If none has: a grid of so many that is nearest to
        twice as high as wide, in the first stride.
    """
    for size, stride_px in product(sizes, strides_px):
        grid = patch_grid(*size, stride_px)
        if grid[0] * grid[1] == num_patches:
            return TokenOptions(grid, stride_px)
    grids = [(num_patches // n, n) for n in range(1, num_patches + 1) if num_patches % n == 0] or [(16, 8)]
    return TokenOptions(min(grids, key=lambda grid: abs(grid[0] - 2 * grid[1])), strides_px[0])


def size_of(tokens: TokenOptions | None, sizes: Sequence[Size]) -> Size:
    """The first size, in pixels, of images with such a grid of patches; where none has, the smallest that has it."""
    if tokens is None:
        return sizes[0]
    rows, columns = tokens.grid
    smallest = ((rows - 1) * tokens.stride_px + PATCH_PX, (columns - 1) * tokens.stride_px + PATCH_PX)
    return next((size for size in sizes if patch_grid(*size, tokens.stride_px) == tokens.grid), smallest)
