"""The options that several commands share: of artifacts, checkpoints, data sets and galleries."""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from reidgallery import Gallery, MilvusGallery
from reidruntime import (
    ImageInput,
    Manifest,
    Session,
    SessionOptions,
    manifest_for_foreign_onnx,
    manifest_from_onnx,
    open_session,
)
from reidruntime.artifact.camera_profile import UnknownCamera, manifest_with_profile, read_camera_profile
from reidruntime.artifact.manifest import (
    ChannelOrder,
    Channels3,
    Feature,
    Layout,
    Origin,
    Pooling,
    ResizeKernel,
    StemPool,
)
from reidruntime.artifact.onnx_metadata import read_onnx
from reidruntime.artifact.own_manifest import artifact_manifest
from reidruntime.backends import BackendName, DeviceName
from reidruntime.images.depth import Depth
from typer import Argument, Option

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.cli.output import log
from reidexport.data import Dataset, SameCamera, load_dataset
from reidexport.embed.files import read_gallery
from reidexport.errors import InputError
from reidexport.evaluation.opening import lacks_manifest
from reidexport.evaluation.recognition import OPTIONS, recognize
from reidexport.gallery.milvus_address import is_milvus, open_milvus
from reidexport.records.embeddings import GalleryChange

if TYPE_CHECKING:
    from reidexport.serving.triton.config import Batching

_DEFAULTS = {"channel_order": "RGB", "layout": "NCHW", "resize": "bilinear"}

_pixels = partial(Option, rich_help_panel="How the network takes its images, where the file does not say")
_stated = partial(Option, rich_help_panel="What a checkpoint cannot tell")
_fact = partial(Option, rich_help_panel="Facts about an ONNX file that carries no manifest")

ArtifactArgument = Annotated[Path, Argument(metavar="ARTIFACT", help="An ONNX file.")]
ThreadsOption = Annotated[int | None, Option(min=1, help="Threads of the network; all CPUs if left out.")]
BatchOption = Annotated[int | None, Option(min=1, help="Images per run of the network.")]
DepthOption = Annotated[
    Depth,
    Option(
        help="Image files of more than 8 bits a channel: refuse them, or scale their whole range to 8 bits."
    ),
]
CamerasOption = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="The camera profile (*.cameras.json) that reidexport adapt wrote with the artifact: features are "
        "standardized by the camera of each image.",
    ),
]
UnknownCameraOption = Annotated[
    UnknownCamera,
    Option(help="With --cameras, an image of another camera: refuse it, or take the mean of all crops."),
]
DatasetOption = Annotated[
    str | None, Option(metavar="NAME", help="Which data set, where the folder holds several.")
]
SameCameraOption = Annotated[
    SameCamera,
    Option(
        help="Gallery images of a query's person by the query's own camera: dropped, as in Market-1501's protocol, or "
        "kept, for data of one camera or of none."
    ),
]
GalleryArgument = Annotated[
    str,
    Argument(
        metavar="GALLERY",
        help="What reidexport embed wrote: *.gallery, *.npz, *.parquet, a folder of *.parquet; or what reidexport "
        "store filled: milvus:FILE.db, http(s)://HOST:PORT.",
    ),
]
GalleryArtifactOption = Annotated[
    Path | None,
    Option("--artifact", metavar="ARTIFACT", help="What embedded the gallery, to embed query images."),
]


LabelsOption = Annotated[
    Path | None,
    Option(
        "--labels",
        metavar="FILE",
        help="CSV or Parquet with the columns path, person, camera (from 1) and time, for what names do not tell.",
    ),
]
OnDuplicateOption = Annotated[
    Literal["error", "skip", "replace"] | None,
    Option(
        help="Where a path is in the gallery already: stop, keep the gallery's row, or put the new one there."
    ),
]
IncludeForgottenOption = Annotated[
    bool,
    Option(
        "--include-forgotten", help="Add persons and images, too, that reidexport forget removed from there."
    ),
]


@dataclass(frozen=True)
class RunOptions:
    """What runs the network, and where."""

    backend: Annotated[BackendName, Option(help="What runs the network; auto: the fastest one.")] = "auto"
    device: Annotated[DeviceName, Option(help="Where it runs; auto: CUDA where it can be used.")] = "auto"
    threads: ThreadsOption = None
    depth: DepthOption = "refuse"
    cameras: CamerasOption = None
    unknown_camera: UnknownCameraOption = "refuse"

    def options(self) -> SessionOptions:
        """The same, for sessions; their camera profile is passed beside."""
        chosen = dict(vars(self))
        del chosen["cameras"]
        return SessionOptions(**chosen)

    def open(self, artifact: Path, manifest: Manifest | None = None) -> Session:
        """A session from :func:`reidruntime.open_session`, with its errors."""
        return open_session(artifact, self.options(), manifest=manifest, cameras=self.cameras)

    def features_manifest(self, artifact: Path, manifest: Manifest | None) -> Manifest:
        """The manifest of the features that a session would give; its own, where none is given."""
        known = manifest or artifact_manifest(artifact)
        if self.cameras is None:
            return known
        return manifest_with_profile(known, read_camera_profile(self.cameras, artifact, known))


@dataclass(frozen=True)
class PixelOptions:
    """How a network takes its images: facts about an ONNX file without a manifest, and about a checkpoint."""

    size: Annotated[str | None, _pixels(metavar="HxW", help="Height and width in pixels.")] = None
    mean: Annotated[str | None, _pixels(metavar="C,C,C", help="Mean of pixels in [0, 1].")] = None
    std: Annotated[
        str | None,
        _pixels(metavar="C,C,C", help="Deviation of pixels in [0, 1]; 1/255 for a network that takes 0-255."),
    ] = None
    channel_order: Annotated[ChannelOrder | None, _pixels(help="Order of the network's channels.")] = None
    resize: Annotated[ResizeKernel | None, _pixels(help="Resize kernel of the training code.")] = None


@dataclass(frozen=True)
class ForeignOptions(PixelOptions):
    """Facts about an ONNX file that carries no manifest."""

    layout: Annotated[Layout | None, _fact(help="Layout of the input; NCHW if left out.")] = None
    output_name: Annotated[
        str | None, _fact(metavar="NAME", help="The output that is the embedding, where several can be.")
    ] = None

    def manifest(self, artifact: Path) -> Manifest | None:
        """The manifest of an ONNX file that carries none: as its project is known to export, and as the options state.

        None where the file is of another kind, or carries a manifest, or nothing is known of it.

        Raises:
            InputError: an option cannot be read, some of size, mean and std are missing, or the file has a manifest.
        """
        return self.manifests([artifact]).get(artifact)

    def manifests(self, files: Sequence[Path]) -> dict[Path, Manifest]:
        """The manifests of those files that are ONNX and carry none, as for :meth:`manifest`.

        Raises:
            InputError: as for :meth:`manifest`; that is, where options are given, of all files.
        """
        without = [path for path in files if lacks_manifest(path)]
        if not without and self != ForeignOptions():
            manifest_from_onnx(files[0])  # says what it is if it is not ONNX
            raise InputError(
                f"{files[0]}: the file carries a manifest. "
                "Leave out --size --mean --std --channel-order --layout --output-name --resize."
            )
        stated = {path: self._stated(path) for path in without}
        return {path: manifest for path, manifest in stated.items() if manifest is not None}

    def _stated(self, artifact: Path) -> Manifest | None:
        told = self._given_facts()
        recognized = recognize(read_onnx(artifact))
        known: dict[str, Any] = {**recognized.facts, **told} if recognized else told
        if not known and self.output_name is None:
            return None
        if missing := [name for name in ("size", "mean", "std") if name not in known]:
            options = " ".join(OPTIONS[name] for name in missing)
            raise InputError(f"{artifact}: the file carries no manifest; give {options} too.")
        origins: dict[str, Origin] = {}
        # What is as it would be anyway needs no words.
        if recognized is not None and any(known[name] != {**_DEFAULTS, **told}.get(name) for name in known):
            origins = recognized.origins(told)
            log(f"{artifact}: taken for an export of {recognized.project}")
            for line in recognized.lines(told):
                log(f"  {line}")
        height_px, width_px = known.pop("size")
        images = ImageInput(height_px=height_px, width_px=width_px, **{**_DEFAULTS, **known})
        manifest = manifest_for_foreign_onnx(artifact, images, output_name=self.output_name)
        return manifest.model_copy(update={"origins": origins})

    def _given_facts(self) -> dict[str, Any]:
        """The given facts, by the names of :class:`ImageInput`'s fields, and "size"."""
        told = {
            "size": _parse_size(self.size) if self.size else None,
            "mean": _parse_channels("--mean", self.mean) if self.mean else None,
            "std": _parse_channels("--std", self.std) if self.std else None,
            "channel_order": self.channel_order,
            "layout": self.layout,
            "resize": self.resize,
        }
        return {name: value for name, value in told.items() if value is not None}

    def refuse_for_checkpoint(self, checkpoint: Path) -> None:
        """Raise InputError where an option is given that only ONNX files have."""
        for option, value in (("--layout", self.layout), ("--output-name", self.output_name)):
            if value is not None:
                raise InputError(
                    f"{checkpoint} is a checkpoint: leave out {option}, which is for ONNX files."
                )


@dataclass(frozen=True)
class CheckpointOptions:
    """What a checkpoint cannot tell, beside :class:`PixelOptions`."""

    weights: Annotated[
        str | None,
        _stated(metavar="KEY", help="Which of several sets of weights in the file, such as model or ema."),
    ] = None
    arch: Annotated[str | None, _stated(help="The backbone, when it is not recognized.")] = None
    last_stride: Annotated[int | None, _stated(min=1, max=2, help="Stride of the last stage.")] = None
    stem_relu: Annotated[bool | None, _stated(help="Whether a ReLU follows a ResNet's stem.")] = None
    stem_pool: Annotated[
        StemPool | None,
        _stated(
            help="Max pooling of a ResNet's stem: 3x3 padded by 1 (padded), or also ceil_mode (padded-ceil); 3x3 "
            "unpadded (valid), or also ceil_mode (ceil); 2x2; or none."
        ),
    ] = None
    pooling: Annotated[
        str | None, _stated(metavar="avg|max|gem[:P]", help="Global pooling; gem alone has p = 3.")
    ] = None
    camid: Annotated[
        int | None,
        _stated(
            metavar="N", min=1, help="Whose camera embedding a transformer adds, from 1; none if left out."
        ),
    ] = None
    camera_weight: Annotated[
        float | None, _stated(metavar="W", help="What the camera embedding is multiplied by (SIE_COE).")
    ] = None
    semantic_weight: Annotated[
        float | None,
        _stated(metavar="W", help="Of SOLIDER's networks: 0 to 1, how much of semantics, not of looks."),
    ] = None
    unit_parts: Annotated[
        bool | None, _stated(help="Whether each part of a LightMBN's feature has unit length.")
    ] = None
    bn_eps: Annotated[float | None, _stated(metavar="EPS", help="What all BatchNorms add to variances.")] = (
        None
    )

    def choices(self, pixels: PixelOptions) -> CheckpointChoices:
        """The same for loading a checkpoint; raises InputError where an option cannot be read."""
        pooling, gem_p = _parse_pooling(self.pooling) if self.pooling else (None, None)
        return CheckpointChoices(
            arch=self.arch,
            last_stride=cast(Literal[1, 2] | None, self.last_stride),
            stem_relu=self.stem_relu,
            stem_pool=self.stem_pool,
            pooling=pooling,
            gem_p=gem_p,
            batch_norm_eps=self.bn_eps,
            unit_parts=self.unit_parts,
            camera=self.camid,
            camera_weight=self.camera_weight,
            semantic_weight=self.semantic_weight,
            size=_parse_size(pixels.size) if pixels.size else None,
            mean=_parse_channels("--mean", pixels.mean) if pixels.mean else None,
            std=_parse_channels("--std", pixels.std) if pixels.std else None,
            channel_order=pixels.channel_order,
            resize=pixels.resize,
            weights=self.weights,
        )


def open_stated(
    artifact: Path,
    run: RunOptions,
    checkpoint: CheckpointOptions,
    foreign: ForeignOptions,
    *,
    feature: Feature | None = None,
) -> Session:
    """A checkpoint or an artifact as a session, with the facts that are stated of it; those of a checkpoint are logged.

    Raises:
        InputError: an option of an artifact is given for a checkpoint, or the other way round.
        CheckpointError: the checkpoint cannot be read.
        ArtifactError: the artifact cannot be opened.
    """
    from reidexport.evaluation.opening import kind_of, open_any

    if kind_of(artifact) == "checkpoint":
        foreign.refuse_for_checkpoint(artifact)
    elif foreign != ForeignOptions() and (feature is not None or checkpoint != CheckpointOptions()):
        options = 'the options under "What a checkpoint cannot tell"'
        raise InputError(
            f"{artifact} is an artifact, whose network is built in: leave out "
            f"{options if feature is None else f'--feature and {options}'}."
        )
    elif (manifest := foreign.manifest(artifact)) is not None:
        return run.open(artifact, manifest)
    return open_any(
        artifact,
        run.options(),
        feature=feature,
        choices=checkpoint.choices(foreign),
        cameras=run.cameras,
        log=log,
    )


@dataclass(frozen=True)
class DataOptions:
    """The data set to score on."""

    data: Annotated[Path, Option(metavar="ROOT", help="Data set folder, or the folder that holds it.")]
    dataset: DatasetOption = None
    same_camera: SameCameraOption = "drop"

    def load(self) -> Dataset:
        """The data set, with the errors of :func:`reidexport.data.load_dataset`."""
        return load_dataset(self.data, self.dataset, same_camera=self.same_camera, log=log)


@dataclass(frozen=True)
class BatchingOptions:
    """Which requests a server answers in one run of the network."""

    max_batch: Annotated[
        int | None, Option(min=1, help="Images per run; the artifact's maximum or 32 if left out.")
    ] = None
    max_queue_delay_us: Annotated[
        int, Option(min=0, help="How long a batch that is not full waits for more.")
    ] = 500

    def options(self) -> "Batching":
        """The same for what configures Triton."""
        from reidexport.serving.triton.config import Batching

        return Batching(self.max_batch, self.max_queue_delay_us)


def change_text(change: GalleryChange) -> str:
    """What became of rows that were to be added, in a line."""
    parts = [f"{change.num_added} added"]
    for number, words in (
        (change.num_replaced, "replaced"),
        (change.num_duplicates_skipped, "left out as the gallery has their paths"),
        (change.num_forgotten_skipped, "left out as forgotten (--include-forgotten adds them)"),
    ):
        if number:
            parts.append(f"{number} {words}")
    return f"{', '.join(parts)}; now {change.num_rows} embeddings"


def open_gallery(gallery: str) -> AbstractContextManager[Gallery | MilvusGallery]:
    """The gallery behind a path or an address."""
    return open_milvus(gallery) if is_milvus(gallery) else nullcontext(read_gallery(Path(gallery)))


def _parse_size(text: str) -> tuple[int, int]:
    """``"256x128"`` -> (256, 128), height first; raises InputError for anything else."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise InputError(f"--size {text!r}: expected HEIGHTxWIDTH in pixels, for example 256x128.")
    return int(found.group(1)), int(found.group(2))


def _parse_pooling(text: str) -> tuple[Pooling, float | None]:
    """``"avg"`` -> ("avg", None), ``"gem:3.5"`` -> ("gem", 3.5)."""
    name, colon, power = text.partition(":")
    if name in ("avg", "max") and not colon:
        return cast(Pooling, name), None
    try:
        gem_p = float(power) if colon else 3.0
    except ValueError:
        gem_p = 0.0
    if name != "gem" or not 0 < gem_p < float("inf"):
        raise InputError(
            f"--pooling {text!r}: expected avg, max, gem or gem:P with a positive P, as in gem:3."
        )
    return "gem", gem_p


def _parse_channels(option: str, text: str) -> Channels3:
    """``"0.485,0.456,0.406"``, or one number for all three; fractions such as 1/255 are numbers."""
    try:
        values = [float(Fraction(part.strip())) for part in text.split(",")]
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"{option} {text!r}: {error}. Expected three numbers: 0.485,0.456,0.406") from error
    if len(values) not in (1, 3) or (option == "--std" and min(values) <= 0):
        raise InputError(f"{option} {text!r}: expected three numbers, positive for --std.")
    return cast(Channels3, tuple(values if len(values) == 3 else values * 3))
