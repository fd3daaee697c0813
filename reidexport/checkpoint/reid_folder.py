"""A folder that roboflow's ``reid`` saves: a file of weights, and one that says whose they are and what they take."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from reidruntime.artifact.manifest import IMAGENET_MEAN, IMAGENET_STD, Channels3, Preprocess, ResizeKernel

from reidexport.errors import CheckpointError

CONFIG, WEIGHTS = "reid_config.json", "weights.safetensors"
_MOST_BYTES = 1 << 20


class Preprocessing(BaseModel):
    """What becomes of images; what a file leaves out is as in ``reid`` itself.

    ``to_rgb`` is of frames of a video, which it says are BGR: the network takes RGB, as image files are.
    """

    model_config = ConfigDict(frozen=True)

    input_size: tuple[int, int] = (256, 128)
    mean: Channels3 = IMAGENET_MEAN
    std: Channels3 = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    to_rgb: bool = True
    resize_mode: Literal["stretch", "letterbox"] = "stretch"


class ReidConfig(BaseModel):
    """The content of ``reid_config.json``; other keys, such as those of other versions, are passed over."""

    model_config = ConfigDict(frozen=True)

    architecture: str
    preprocessing: Preprocessing = Preprocessing()


def is_reid_folder(path: Path) -> bool:
    """Whether a path is such a folder."""
    return path.is_dir() and (path / CONFIG).is_file()


def weights_file(path: Path) -> Path:
    """The file with the weights of a checkpoint: in such a folder, or the checkpoint itself."""
    return path / WEIGHTS if is_reid_folder(path) else path


def read_config(folder: Path) -> ReidConfig:
    """Read ``reid_config.json``.

    Raises:
        CheckpointError: it is not such a file.
    """
    with (folder / CONFIG).open("rb") as stream:
        text = stream.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise CheckpointError(f"its {CONFIG} is longer than {_MOST_BYTES} bytes, which none of reid's is")
    try:
        return ReidConfig.model_validate(json.loads(text))
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValidationError is a ValueError, and so is JSONDecodeError
        problems = (
            "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            if isinstance(error, ValidationError)
            else str(error)
        )
        raise CheckpointError(
            f"its {CONFIG} is not one of roboflow's reid: {problems}. Save the model again with save_pretrained."
        ) from error


def preprocess_of(config: ReidConfig, resize: ResizeKernel | None) -> tuple[Preprocess, frozenset[str]]:
    """The input of the network, and by name which facts about it the file says.

    Args:
        config: the file's content.
        resize: a kernel that is stated instead of the file's.

    Raises:
        CheckpointError: it resizes in a way that nothing here does, or asks for a size or a deviation that cannot be.
    """
    pixels = config.preprocessing
    if pixels.resize_mode == "letterbox":
        raise CheckpointError(
            "its images are fitted into the size with gray borders (resize_mode letterbox), which is not done here. "
            f'If stretched images are good enough, write "stretch" into a copy of its {CONFIG}.'
        )
    if pixels.interpolation == "nearest" and resize is None:
        raise CheckpointError(
            "its images are resized by the nearest pixel (interpolation nearest), which is not done here. If another "
            "kernel is good enough, state it with --resize."
        )
    kernel: ResizeKernel = "bicubic" if pixels.interpolation == "bicubic" else "bilinear"
    height_px, width_px = pixels.input_size
    try:
        preprocess = Preprocess(
            height_px=height_px,
            width_px=width_px,
            mean=pixels.mean,
            std=pixels.std,
            resize=kernel,
            in_graph=True,
        )
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise CheckpointError(f"its {CONFIG} states images that cannot be: {problems}") from error
    names = {"input_size": "size", "mean": "mean", "std": "std", "interpolation": "resize"}
    read = {fact for name, fact in names.items() if name in pixels.model_fields_set}
    if "to_rgb" in pixels.model_fields_set and pixels.to_rgb:
        read.add("channel_order")
    return preprocess, frozenset(read)
