"""Weights and images drawn from a seed, the same on every machine, for the parity tests.

The expected vectors beside this file were computed by the upstream projects' own code on exactly these
weights and images, so that neither upstream code nor weights have to be stored: a table of keys and shapes
and two seeds stand for a whole checkpoint. Changing a rule or a constant here invalidates every expected
vector.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

# The last normalization of a residual branch is drawn small: the sum of fifty branches stays moderate.
# A basic block's `bn2` is the last one as well: `_ends_residual_branch` tells it from a bottleneck's.
_LAST_NORMS = (".bn3.weight", ".conv3.bn.weight", ".W.1.weight")
# What transformers add to their tokens.
_EMBEDDINGS = (
    *("pos_embed", "cls_token", "dist_token", "sie_embed"),
    *("cv_embed", "positional_embedding", "class_embedding"),
)


def _ends_residual_branch(name: str, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Say whether a 1-D weight scales the end of a residual branch.

    Args:
        name: The tensor's key.
        shapes: Every key of the state dict, to tell a basic block from a bottleneck.

    Returns:
        True for the last normalization of a residual or non-local block.
    """
    if name.startswith(("layer0.", "base.layer0.")):
        return False  # SENet-154's stem: its bn3 ends no branch
    if name.endswith(".bn2.weight") and "layer" in name:
        return name.removesuffix(".bn2.weight") + ".bn3.weight" not in shapes
    return name.endswith(_LAST_NORMS)


def seeded_tensor(
    name: str, shape: Sequence[int], seed: int, *, ends_branch: bool = False
) -> NDArray[np.generic]:
    """Draw one tensor of a state dict by its name alone.

    Args:
        name: The tensor's key; with `seed` it determines the random stream.
        shape: The tensor's shape.
        seed: The checkpoint's seed.
        ends_branch: Whether this is the last normalization weight of a residual branch.

    Returns:
        A float32 array; int64 zeros for `num_batches_tracked` and `relative_position_index`.
    """
    if name.endswith(
        ("num_batches_tracked", "relative_position_index")
    ):  # the latter is computed, not learned
        return np.zeros(tuple(shape), dtype=np.int64)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode("utf-8"))])
    if name.endswith("running_mean"):
        values = 0.1 * rng.standard_normal(shape)
    elif name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif name.endswith(".p"):  # the exponent of a generalized-mean pooling
        values = rng.uniform(2.5, 3.5, shape)
    elif name.endswith("bias"):
        values = 0.1 * rng.standard_normal(shape)
    elif name.endswith(_EMBEDDINGS):
        values = 0.2 * rng.standard_normal(shape)
    elif len(shape) == 1:  # the scale of a normalization
        values = rng.uniform(0.1, 0.4, shape) if ends_branch else rng.uniform(0.5, 1.0, shape)
    else:  # a convolution or a linear layer
        fan_in = int(np.prod(shape[1:]))
        values = rng.standard_normal(shape) * np.sqrt(2.0 / fan_in)
        if shape[1] > 3:
            # Zero mean over the inputs: what all channels have in common would else drown the image.
            values -= values.mean(axis=tuple(range(1, len(shape))), keepdims=True)
        if name.endswith((".g.weight", ".theta.weight", ".phi.weight")):
            values *= 0.5  # a non-local block is cubic in its input
    return values.astype(np.float32)


def seeded_state_dict(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, NDArray[np.generic]]:
    """Draw a whole state dict; each tensor depends on its name, never on the order of the keys.

    Args:
        shapes: Key to shape, as in `shapes.json.gz`.
        seed: The checkpoint's seed.

    Returns:
        Key to array, in the order of `shapes`.
    """
    return {
        name: seeded_tensor(name, shape, seed, ends_branch=_ends_residual_branch(name, shapes))
        for name, shape in shapes.items()
    }


def checksum(arrays: Iterable[NDArray[np.generic]]) -> int:
    """Sum up arrays, in steps of 1/1024 so that a last bit that differs between machines does not count.

    Args:
        arrays: The tensors of a state dict in the order of their sorted keys, or one batch of images.

    Returns:
        A CRC-32, as `weights_crc32` and `images_crc32` in `shapes.json.gz`.
    """
    crc = 0
    for array in arrays:
        steps = np.rint(np.multiply(array, 1024, dtype=np.float64)).astype("<i4")
        crc = zlib.crc32(steps.tobytes(), crc)
    return crc


def seeded_images(height: int, width: int, count: int, seed: int) -> NDArray[np.uint8]:
    """Draw images that are smooth at large and noisy in detail, in integer arithmetic only.

    Each image is coarse random noise, enlarged bilinearly, plus fine noise. Grain, tint, contrast and the
    strength of the fine noise differ from image to image, so that two images stay apart after a deep network,
    even behind instance normalization.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        count: How many images; the first images of a longer batch equal those of a shorter one.
        seed: The batch's seed.

    Returns:
        uint8 RGB, [count, height, width, 3].
    """
    images = np.empty((count, height, width, 3), dtype=np.uint8)
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        grain_y, grain_x = (int(grain) for grain in rng.choice([4, 8, 16, 32, 64], 2, replace=False))
        coarse = rng.integers(0, 256, (height // grain_y + 2, width // grain_x + 2, 3), dtype=np.int64)
        tint = rng.integers(-64, 65, 3, dtype=np.int64)
        contrast = rng.integers(4, 33, 3, dtype=np.int64)  # per channel, in sixteenths
        amplitude = int(rng.integers(0, 65))
        noise = rng.integers(-amplitude, amplitude + 1, (height, width, 3), dtype=np.int64)
        y0, y = np.divmod(np.arange(height), grain_y)
        x0, x = np.divmod(np.arange(width), grain_x)
        wy, wx = y[:, None, None], x[None, :, None]
        top = coarse[y0][:, x0] * (grain_x - wx) + coarse[y0][:, x0 + 1] * wx
        bottom = coarse[y0 + 1][:, x0] * (grain_x - wx) + coarse[y0 + 1][:, x0 + 1] * wx
        smooth = (top * (grain_y - wy) + bottom * wy) // (grain_y * grain_x)
        images[index] = np.clip(128 + (smooth - 128) * contrast // 16 + tint + noise, 0, 255)
    return images
