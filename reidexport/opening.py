"""Open whatever a command was given: a checkpoint answers through torch, an artifact through its runtime."""

from pathlib import Path
from typing import Literal

from reidruntime.backends import BackendName, DeviceName
from reidruntime.manifest import Feature, Manifest
from reidruntime.session import Session, open_session

from reidexport.errors import ArtifactError, InputError

Kind = Literal["checkpoint", "onnx", "engine"]


def kind_of(path: Path) -> Kind:
    """What a file is taken for, by its suffix: .onnx, .engine or .plan; anything else is a checkpoint.

    Raises:
        ArtifactError: there is no such file.
    """
    if not path.is_file():
        raise ArtifactError(f"{path}: there is no such file")
    if path.suffix == ".onnx":
        return "onnx"
    return "engine" if path.suffix in (".engine", ".plan") else "checkpoint"


def open_any(
    path: Path,
    *,
    backend: BackendName = "auto",
    device: DeviceName = "auto",
    threads: int | None = None,
    manifest: Manifest | None = None,
    feature: Feature | None = None,
    last_stride: Literal[1, 2] | None = None,
    size: tuple[int, int] | None = None,
) -> Session:
    """Open a checkpoint or an artifact as a session.

    Args:
        path: the file.
        backend: of an artifact.
        device: of an artifact.
        threads: for the network; default: the CPUs this process may use.
        manifest: the facts about a third-party ONNX file.
        feature: f_i or f_t; an artifact has one of them built in.
        last_stride: of a checkpoint, as in ``load_checkpoint``.
        size: of a checkpoint, as in ``load_checkpoint``.

    Raises:
        InputError: the artifact emits another feature, or an artifact's option is given for a checkpoint.
        CheckpointError: the checkpoint cannot be read.
        ArtifactError: the artifact cannot be opened.
    """
    if kind_of(path) != "checkpoint":
        if last_stride is not None or size is not None:
            raise InputError(f"{path} is an artifact: its last stride and size are built in, leave them out")
        session = open_session(path, backend=backend, device=device, threads=threads, manifest=manifest)
        if feature not in (None, session.manifest.feature):
            raise InputError(
                f"{path} emits {session.manifest.feature}, not {feature}: export the checkpoint again with "
                f"--feature {feature}"
            )
        return session
    if (backend, device) != ("auto", "auto") or manifest is not None:
        raise InputError(
            f"{path} is a checkpoint and runs in torch: --backend, --device and --mean are for artifacts"
        )
    from reidexport.checkpoint import load_checkpoint
    from reidexport.graph import GraphOptions
    from reidexport.torch_session import session_from_checkpoint

    checkpoint = load_checkpoint(path, last_stride=last_stride, size=size)
    return session_from_checkpoint(checkpoint, GraphOptions(feature=feature), threads=threads)


def open_reference(path: Path, candidate: Manifest, *, threads: int | None = None) -> Session:
    """Open what a candidate is compared with.

    A checkpoint is opened with the choices that the candidate's manifest records (feature, flip, normalisation,
    size, last stride, stem ReLU): those were the user's, and not what is being checked.
    """
    if kind_of(path) != "checkpoint":
        return open_session(path, threads=threads)
    from reidexport.checkpoint import load_checkpoint
    from reidexport.graph import GraphOptions
    from reidexport.torch_session import session_from_checkpoint

    checkpoint = load_checkpoint(
        path,
        last_stride=candidate.architecture.last_stride,
        stem_relu=candidate.architecture.stem_relu,
        size=(candidate.preprocess.height_px, candidate.preprocess.width_px),
    )
    options = GraphOptions(candidate.feature, candidate.normalized, candidate.flip)
    return session_from_checkpoint(checkpoint, options, threads=threads)
