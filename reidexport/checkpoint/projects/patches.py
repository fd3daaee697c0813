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
        Grid and stride of the first size that has so many patches; of the first size and stride if none has.
    """
    layouts = [(patch_grid(*size, stride_px), stride_px) for size, stride_px in product(sizes, strides_px)]
    fitting = (each for each in layouts if each[0][0] * each[0][1] == num_patches)
    return TokenOptions(*next(fitting, layouts[0]))


def size_of(tokens: TokenOptions | None, sizes: Sequence[Size]) -> Size:
    """The first size, in pixels, of images with such a grid of patches; the first of all where none has."""
    grid, stride_px = (tokens.grid, tokens.stride_px) if tokens else ((0, 0), PATCH_PX)
    return next((size for size in sizes if patch_grid(*size, stride_px) == grid), sizes[0])
