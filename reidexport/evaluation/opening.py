"""Open whatever a command was given: a checkpoint answers through torch, an artifact through its runtime."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reidruntime.artifact.manifest import Feature, Manifest, Origin, Pooling, file_sha256
from reidruntime.artifact.onnx_metadata import manifest_from_onnx, read_onnx
from reidruntime.artifact.own_manifest import artifact_manifest
from reidruntime.session import DEFAULT_OPTIONS, Session, SessionOptions, open_session

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.other_files import ENCRYPTED, folder_kind, is_encrypted
from reidexport.checkpoint.reid_folder import is_reid_folder, weights_file
from reidexport.errors import ArtifactError, InputError

if TYPE_CHECKING:
    from reidexport.checkpoint.loading import Checkpoint

Kind = Literal["checkpoint", "onnx", "engine"]


def kind_of(path: Path) -> Kind:
    """What a file is: an engine by its suffix (.engine, .plan), ONNX by suffix or content, else a checkpoint.

    Raises:
        ArtifactError: there is no such file, or it is a folder and none of roboflow's reid.
    """
    if is_reid_folder(path):
        return "checkpoint"
    if path.is_dir():
        raise ArtifactError(f"{path}: {folder_kind(path)}")
    if not path.is_file():
        raise ArtifactError(f"{path}: there is no such file")
    if is_encrypted(path):
        raise ArtifactError(f"{path}: this is {ENCRYPTED}")
    if path.suffix in (".engine", ".plan"):
        return "engine"
    return "onnx" if path.suffix == ".onnx" or _reads_as_onnx(path) else "checkpoint"


def exported_manifest(path: Path, advice: str) -> Manifest:
    """The manifest that an exported file carries, or an engine has beside it.

    Args:
        path: the file.
        advice: what to do with an ONNX file that carries none.

    Raises:
        ArtifactError: the file is missing, a checkpoint, or has no manifest.
    """
    kind = kind_of(path)
    if kind == "checkpoint":
        raise ArtifactError(f"{path}: neither ONNX nor a TensorRT engine. Export it: reidexport onnx {path}")
    manifest = artifact_manifest(path) if kind == "engine" else manifest_from_onnx(path)
    if manifest is None:
        raise ArtifactError(f"{path}: the file carries no manifest. {advice}")
    return manifest


def open_any(
    path: Path,
    options: SessionOptions = DEFAULT_OPTIONS,
    *,
    feature: Feature | None = None,
    choices: CheckpointChoices | None = None,
    cameras: Path | None = None,
    log: Callable[[str], None] | None = None,
) -> Session:
    """Open a checkpoint or an artifact as a session.

    Args:
        path: the file.
        options: what runs the network, and where; of a checkpoint only the threads and the depth can be
            chosen.
        feature: f_i or f_t; an artifact has one of them built in.
        choices: of a checkpoint.
        cameras: a camera profile of an artifact.
        log: called with a line for the facts of a checkpoint.

    Raises:
        InputError: an option of an artifact is given for a checkpoint, or the other way round.
        CheckpointError: the checkpoint cannot be read.
        ArtifactError: the artifact cannot be opened.
    """
    if kind_of(path) != "checkpoint":
        if choices not in (None, CheckpointChoices()):
            raise InputError(
                f"{path} is an artifact: what is chosen for a checkpoint is built in, leave it out"
            )
        session = open_session(path, options, cameras=cameras)
        if feature not in (None, session.manifest.feature):
            raise InputError(
                f"{path} emits {session.manifest.feature}, not {feature}: export the checkpoint again with "
                f"--feature {feature}"
            )
        return session
    if options != SessionOptions(
        threads=options.threads, depth=options.depth, unknown_camera=options.unknown_camera
    ):
        raise InputError(
            f"{path} is a checkpoint and runs in torch: --backend and --device are for artifacts"
        )
    _refuse_cameras(path, cameras)
    from reidexport.checkpoint.loading import load_checkpoint
    from reidexport.evaluation.torch_session import session_from_checkpoint
    from reidexport.export.graph import GraphOptions

    checkpoint = load_checkpoint(path, choices)
    if log:
        for line in checkpoint.fact_lines:
            log(line)
    return session_from_checkpoint(
        checkpoint, GraphOptions(feature=feature), threads=options.threads, depth=options.depth
    )


def open_reference(
    path: Path,
    candidate: Manifest,
    *,
    choices: CheckpointChoices | None = None,
    feature: Feature | None = None,
    manifest: Manifest | None = None,
    cameras: Path | None = None,
    on_checkpoint: "Callable[[Checkpoint], object]" = lambda _: None,
    options: SessionOptions = DEFAULT_OPTIONS,
) -> Session:
    """Open what a candidate is compared with.

    A checkpoint is opened with the facts that the candidate's manifest records: whether the candidate computes what
    it says is checked, not whether the facts are right. Of an ONNX file that carried no manifest only size and resize
    kernel are taken: its network may take other pixels than the checkpoint's, and the stated facts are checked, too.

    Args:
        path: a checkpoint or an artifact.
        candidate: the manifest of what is compared.
        choices: of a checkpoint, instead of what the manifest records.
        feature: of a checkpoint, where the candidate carried no manifest; default: what its project publishes.
        manifest: the facts about an ONNX file that carries none.
        cameras: a camera profile of an artifact.
        on_checkpoint: called with a checkpoint before it is opened, to print or to test its facts.
        options: of the session, but for backend and device: the reference chooses them itself.

    Raises:
        InputError: choices are given for an artifact, or the checkpoint cannot have them; or the candidate was adapted
            to a site, and the reference is a checkpoint.
        CheckpointError: the checkpoint cannot be read.
        ArtifactError: the artifact cannot be opened.
    """
    if kind_of(path) != "checkpoint":
        if choices not in (None, CheckpointChoices()):
            raise InputError(
                f"{path} is an artifact: what is chosen for a checkpoint is built in, leave it out"
            )
        return open_session(
            path, replace(options, backend="auto", device="auto"), manifest=manifest, cameras=cameras
        )
    _refuse_cameras(path, cameras)
    if candidate.adaptation is not None:
        raise InputError(
            f"The candidate was adapted to a site, so it does not answer as the checkpoint {path} does. Compare it "
            "with the FP32 file of the same crops: reidexport adapt CHECKPOINT CROPS -o FILE.onnx."
        )
    from reidexport.checkpoint.facts import told_facts
    from reidexport.checkpoint.loading import load_checkpoint
    from reidexport.evaluation.torch_session import session_from_checkpoint
    from reidexport.export.graph import GraphOptions

    if not is_foreign(candidate) and feature not in (None, candidate.feature):
        raise InputError(
            f"the candidate emits {candidate.feature}, as its manifest says: leave --feature {feature} out"
        )
    told = choices or CheckpointChoices()
    recorded = recorded_choices(candidate)
    if file_sha256(weights_file(path)) != candidate.source.sha256:
        recorded = replace(recorded, weights=None)  # the keys of another file
    elif not candidate.origins and recorded.weights is None:
        recorded = replace(recorded, weights=_key_of_earlier_versions(path))
    stated = {name: value for name, value in vars(told).items() if value is not None}
    if told.pooling is not None:
        stated["gem_p"] = told.gem_p
    wanted = feature if is_foreign(candidate) else candidate.feature
    graph_options = GraphOptions(feature=wanted, normalize=candidate.normalized, flip=candidate.flip)
    checkpoint = load_checkpoint(path, replace(recorded, **stated))
    # What the manifest only repeats is as open as in the file, or as it was at the export.
    origins: dict[str, Origin] = dict.fromkeys(checkpoint.read, "read")
    if not is_foreign(candidate):
        origins |= candidate.origins
    origins |= told_facts(told)
    facts = tuple(replace(fact, origin=origins.get(fact.name, "assumed")) for fact in checkpoint.facts)
    on_checkpoint(replace(checkpoint, facts=facts))
    return session_from_checkpoint(checkpoint, graph_options, threads=options.threads, depth=options.depth)


def _refuse_cameras(checkpoint: Path, cameras: Path | None) -> None:
    if cameras is not None:
        raise InputError(
            f"{checkpoint} is a checkpoint, and a camera profile belongs to the file that was exported with it: leave "
            "--cameras out, or pass that file."
        )


def _key_of_earlier_versions(path: Path) -> str | None:
    """The set of weights that was taken before averages were: the first usual one. None where there is one set."""
    from reidexport.checkpoint.weights import read_weights

    weights = read_weights(path)
    keys = (weights.key, *weights.other_keys)
    usual = [key for key in ("state_dict", "model", "net", "model_state_dict", "module") if key in keys]
    return usual[0] if usual and weights.other_keys else None


def recorded_choices(manifest: Manifest) -> CheckpointChoices:
    """What an exported file's manifest records of its network, as choices for its checkpoint."""
    network, pixels = manifest.architecture, manifest.preprocess
    size = (pixels.height_px, pixels.width_px)
    if is_foreign(manifest):
        return CheckpointChoices(size=size, resize=pixels.resize)
    known: dict[str, Pooling] = {"avg": "avg", "max": "max", "gem": "gem"}
    return CheckpointChoices(
        last_stride=network.last_stride,
        stem_relu=network.stem_relu,
        stem_pool=network.stem_pool,
        pooling=known.get(network.pooling),
        gem_p=network.gem_p,
        batch_norm_eps=network.batch_norm_eps,
        camera=network.cameras.camera if network.cameras else None,
        camera_weight=network.cameras.weight if network.cameras else None,
        semantic_weight=network.semantic_weight,
        unit_parts=None if network.parts is None else network.parts == "unit",
        size=size,
        mean=pixels.mean,
        std=pixels.std,
        channel_order=pixels.channel_order,
        resize=pixels.resize,
        weights=manifest.source.weights,
    )


def lacks_manifest(path: Path) -> bool:
    """Whether a file is ONNX and carries no manifest; raises ArtifactError where there is none, or it is damaged."""
    return kind_of(path) == "onnx" and manifest_from_onnx(path) is None


def is_foreign(manifest: Manifest) -> bool:
    """Whether a manifest was stated for an ONNX file of another program, which carried none."""
    return manifest.architecture.family == "foreign"


def _reads_as_onnx(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.read(1) != b"\x08":  # ONNX's first field, its version
            return False
    try:
        read_onnx(path)
    except ArtifactError:
        return False
    return True
