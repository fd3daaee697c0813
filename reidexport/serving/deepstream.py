"""What DeepStream's tracker (Gst-nvtracker) needs to compare people by an artifact: the network and a ``ReID`` section.

The tracker feeds the network ``netScaleFactor · (pixel - offsets[channel])`` of crops that it has scaled itself.
"""

from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray
from reidruntime.artifact.manifest import Manifest

from reidexport.errors import InputError
from reidexport.export.float_input import with_one_scale
from reidexport.export.onnx_check import CHECKED_BATCHES, check_parity, require_onnxruntime
from reidexport.files import replaced_when_whole
from reidexport.tensorrt.source import load_onnx

Tracker = Literal["NvDeepSORT", "NvDCF"]

CONFIG_NAME = "tracker_reid.yml"
_REID_TYPES: dict[Tracker, int] = {"NvDeepSORT": 1, "NvDCF": 2}
_NETWORK_MODES = {"fp32": 0, "fp16": 1}
_HEADER = """\
# The ReID section for the configuration of {tracker}: put it in place of the existing one.
#
# {name} is {source} with a float32 input. The tracker computes
# netScaleFactor * (pixel - offsets[channel]); what the network needs beyond that is inside the file.
# Resizing: the tracker scales crops with a kernel of its own, the network expects Pillow's {resize} one. Its
# embeddings are close to those of reidexport embed, not equal: measure before you mix both in one gallery.
# keepAspc is 0, since the network was trained on crops that were stretched to its size.
"""


def bundle_paths(artifact: Path, folder: Path) -> tuple[Path, Path]:
    """The files of an artifact's bundle: the network and the configuration."""
    return folder / f"{artifact.stem}_deepstream.onnx", folder / CONFIG_NAME


def write_deepstream_bundle(
    artifact: Path,
    manifest: Manifest,
    folder: Path,
    *,
    tracker: Tracker = "NvDeepSORT",
    batch_size: int | None = None,
    installed_at: str | None = None,
) -> Path:
    """Write the network and the ReID section of the tracker's configuration into a folder, which is made.

    The network's answers have been compared with the artifact's before it appears.

    Args:
        artifact: an ONNX file.
        manifest: its facts.
        folder: where to; files of an earlier bundle are replaced.
        tracker: whose configuration; NvDCF uses the embeddings to find lost targets again.
        batch_size: crops per run of the network; default: the artifact's own, or 100 as in NVIDIA's samples.
        installed_at: the folder's absolute path where DeepStream will run; default: where it is written.

    Returns:
        The configuration.

    Raises:
        InputError: the tracker cannot use such a network, the batch does not fit, or the folder is invalid.
        ArtifactError: the file cannot be loaded, or its input is of another form.
        NotInstalledError: ONNX Runtime, which the check needs, is not installed.
        ParityError: the written network does not answer as the artifact.
    """
    _check_usable(artifact, manifest)
    batch = _batch_size(manifest, batch_size)
    require_onnxruntime()
    model, facts = with_one_scale(load_onnx(artifact, manifest.output.name), manifest)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be created ({error.strerror}). Choose another path.") from error
    network, config = bundle_paths(artifact, folder)
    installed = PurePosixPath(installed_at or folder.resolve()) / network.name
    section = reid_section(facts, str(installed), tracker=tracker, batch_size=batch)
    with replaced_when_whole(network) as temporary:
        onnx.save(model, temporary)
        onnx.checker.check_model(str(temporary), full_check=True)
        _check_answers(artifact, manifest, temporary, section)
    header = _HEADER.format(
        tracker=tracker, name=network.name, source=artifact.name, resize=facts.preprocess.resize
    )
    text = yaml.safe_dump({"ReID": section}, sort_keys=False, default_flow_style=None)
    with replaced_when_whole(config) as temporary:
        temporary.write_text(header + text)
    return config


def reid_section(manifest: Manifest, onnx_file: str, *, tracker: Tracker, batch_size: int) -> dict[str, Any]:
    """The keys of Gst-nvtracker's ``ReID`` section for a network from ``with_one_scale``: its deviations are equal.

    ``onnx_file`` is the network's path where DeepStream runs, ``batch_size`` how many crops it takes per run.
    """
    pixels = manifest.preprocess
    return {
        "reidType": _REID_TYPES[tracker],
        "batchSize": batch_size,
        "workspaceSize": 1000,
        "reidFeatureSize": manifest.architecture.feature_dim,
        "reidHistorySize": 100,
        "inferDims": list(manifest.input.shape[1:]),
        "networkMode": _NETWORK_MODES[manifest.precision],
        "inputOrder": ["NCHW", "NHWC"].index(pixels.layout),
        "colorFormat": ["RGB", "BGR"].index(pixels.channel_order),
        "offsets": [_float32(255 * mean) for mean in pixels.mean],
        "netScaleFactor": _float32(1 / (255 * pixels.std[0])),
        "keepAspc": 0,
        "addFeatureNormalization": 0 if manifest.normalized else 1,
        "onnxFile": onnx_file,
        "modelEngineFile": f"{onnx_file}_b{batch_size}_gpu0_{manifest.precision}.engine",
    }


def tracker_input(section: dict[str, Any], images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the tracker computes from a section, for crops that have the network's size already.

    Args:
        section: of :func:`reid_section`, or read from the file.
        images: uint8 RGB, (N, height, width, 3).

    Returns:
        float32, (N, 3, height, width), or (N, height, width, 3) where ``inputOrder`` is 1.
    """
    ordered = images[..., ::-1] if section["colorFormat"] else images
    offsets = np.array(section["offsets"], np.float32)
    scaled = np.float32(section["netScaleFactor"]) * (ordered.astype(np.float32) - offsets)
    return np.ascontiguousarray(scaled if section["inputOrder"] else scaled.transpose(0, 3, 1, 2))


def _check_usable(artifact: Path, manifest: Manifest) -> None:
    if manifest.precision not in _NETWORK_MODES:
        raise InputError(
            f"{artifact} is {manifest.precision}: DeepStream makes INT8 from a calibration table of its own. Pass an "
            "FP32 or FP16 artifact."
        )
    if manifest.metric != "cosine":
        raise InputError(
            f"{artifact} is compared by {manifest.metric}, but DeepStream's tracker compares by cosine."
        )


def _batch_size(manifest: Manifest, wanted: int | None) -> int:
    profile = manifest.batch_profile
    batch = wanted or profile.static or min(100, profile.maximum or 100)
    if batch < profile.minimum or batch > (profile.maximum or batch):
        raise InputError(
            f"a batch of {batch} does not fit: the artifact takes {profile.minimum} to {profile.maximum}."
        )
    return batch


def _check_answers(artifact: Path, manifest: Manifest, network: Path, section: dict[str, Any]) -> None:
    """Compare the network, fed as the tracker does, with the artifact, fed as its manifest says."""
    from reidruntime import SessionOptions, open_session

    pixels, batch = manifest.preprocess, manifest.batch_profile.static
    sizes = (batch,) if batch else CHECKED_BATCHES
    shape = (max(sizes), pixels.height_px, pixels.width_px, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with open_session(
        artifact, SessionOptions(backend="onnxruntime", device="cpu"), manifest=manifest
    ) as session:
        check_parity(
            lambda given: session.embed(list(images[: len(given)])),
            network,
            (tracker_input(section, images[:size]) for size in sizes),
            manifest,
            artifact.name,
        )


def _float32(value: float) -> float:
    """The shortest number that is read as the same float32."""
    return float(str(np.float32(value)))
