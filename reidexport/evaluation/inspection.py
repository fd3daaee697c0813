"""What is this file? A checkpoint, an ONNX file, an engine or embeddings, described as a record."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from reidgallery.file import GALLERY_SUFFIX
from reidgallery.input import UNLABELED
from reidruntime.artifact.checks import check_external_data, check_inference_mode
from reidruntime.artifact.manifest import engine_manifest_path, file_sha256
from reidruntime.artifact.onnx_metadata import OnnxFile, manifest_from_onnx, read_onnx
from reidruntime.artifact.own_manifest import artifact_manifest

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.reid_folder import weights_file
from reidexport.errors import ArtifactError, InputError
from reidexport.evaluation.opening import kind_of
from reidexport.evaluation.recognition import recognize
from reidexport.records.inspection import (
    CheckpointDescription,
    EngineDescription,
    Evidence,
    FileDescription,
    GalleryDescription,
    OnnxDescription,
)

if TYPE_CHECKING:
    from reidexport.checkpoint.loading import Checkpoint

_EMBEDDINGS = (".npz", ".parquet", GALLERY_SUFFIX)


def inspect_file(
    path: str | Path,
    choices: CheckpointChoices | None = None,
    test: "Callable[[Checkpoint], tuple[Checkpoint, Evidence | None]] | None" = None,
) -> FileDescription:
    """Describe a checkpoint, an ONNX file, an engine, or a file of embeddings.

    Args:
        path: the file.
        choices: of a checkpoint.
        test: what tests the assumptions of a checkpoint, as :func:`reidexport.evaluation.evidence.check_assumptions`
            does; default: they are only listed.

    Returns:
        A record whose ``kind`` is "checkpoint", "onnx", "engine" or "gallery".

    Raises:
        ArtifactError: there is no such file, or it is damaged.
        InputError: a file of embeddings is damaged.
        CheckpointError: it is neither an artifact nor a checkpoint that can be read.
        InputError: choices are given for an artifact, or the checkpoint cannot have them.
    """
    path = Path(path)
    kind = kind_of(path)
    content = weights_file(path)
    size_mib = round(content.stat().st_size / 2**20, 2)
    about = {"file": str(path), "size_mib": size_mib, "sha256": file_sha256(content)}
    is_embeddings = path.suffix in _EMBEDDINGS
    if kind == "checkpoint" and not is_embeddings:
        return _checkpoint(path, choices, test, about)
    if choices not in (None, CheckpointChoices()) or test:
        raise InputError(f"{path} is not a checkpoint: leave out the options that state or test what one is")
    describe = _gallery if is_embeddings else {"onnx": _onnx, "engine": _engine}[kind]
    return describe(path, about)


def _checkpoint(
    path: Path,
    choices: CheckpointChoices | None,
    test: "Callable[[Checkpoint], tuple[Checkpoint, Evidence | None]] | None",
    about: dict[str, Any],
) -> CheckpointDescription:
    from reidexport.checkpoint.loading import load_checkpoint

    checkpoint, evidence = load_checkpoint(path, choices), None
    if test:
        checkpoint, evidence = test(checkpoint)
    return CheckpointDescription(
        **about,
        family=checkpoint.family,
        layout=checkpoint.layout,
        architecture=asdict(checkpoint.architecture),
        feature=checkpoint.feature,
        num_parameters=sum(tensor.numel() for tensor in checkpoint.state_dict.values()),
        preprocess=checkpoint.preprocess,
        facts={fact.name: fact.text for fact in checkpoint.facts},
        origins=checkpoint.origins,
        assumed=checkpoint.assumed,
        lookalikes=checkpoint.lookalikes,
        evidence=evidence,
    )


def _onnx(path: Path, about: dict[str, Any]) -> OnnxDescription:
    import onnx
    from google.protobuf.message import DecodeError

    manifest = manifest_from_onnx(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise ArtifactError(f"{path}: not a whole ONNX file ({error}). Copy or export it again.") from error
    weights = {tensor.name for tensor in model.graph.initializer}
    file = read_onnx(path)
    recognized = None if manifest else recognize(file)
    return OnnxDescription(
        **about,
        opset=next((entry.version for entry in model.opset_import if entry.domain == ""), None),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=tuple(_tensor(value) for value in model.graph.input if value.name not in weights),
        outputs=tuple(_tensor(value) for value in model.graph.output),
        operators=dict(Counter(node.op_type for node in model.graph.node).most_common()),
        manifest=manifest,
        exporter=recognized.project if recognized else None,
        images=tuple(recognized.lines(())) if recognized else (),
        problems=_problems(file, path),
    )


def _problems(file: OnnxFile, path: Path) -> tuple[str, ...]:
    """What opening the file would be refused for."""
    found = []
    for check in (check_external_data, check_inference_mode):
        try:
            check(file, path)
        except ArtifactError as error:
            found.append(str(error))
    return tuple(found)


def _engine(path: Path, about: dict[str, Any]) -> EngineDescription:
    has_manifest = engine_manifest_path(path).is_file()
    return EngineDescription(**about, manifest=artifact_manifest(path) if has_manifest else None)


def _gallery(path: Path, about: dict[str, Any]) -> GalleryDescription:
    from reidexport.embed.files import read_gallery

    gallery = read_gallery(path)
    pids = gallery.pids
    return GalleryDescription(
        **about,
        num_rows=len(gallery),
        dim=gallery.dim,
        metric=gallery.metric,
        num_persons=len(np.unique(pids[pids > 0])),
        num_cameras=len(np.unique(gallery.camids[gallery.camids != UNLABELED])),
        num_unnamed=int((pids == UNLABELED).sum()),
        num_timed=int((gallery.times != UNLABELED).sum()),
        manifest_sha256=gallery.manifest_sha256,
    )


def _tensor(value: Any) -> str:
    import onnx

    tensor = value.type.tensor_type
    shape = ", ".join(str(dim.dim_param or dim.dim_value) for dim in tensor.shape.dim)
    return f"{value.name}: {onnx.TensorProto.DataType.Name(tensor.elem_type).lower()} [{shape}]"
