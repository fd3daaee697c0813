"""A session: an artifact opened on this machine, from images to embeddings."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reidruntime.artifact.camera_profile import (
    UNKNOWN_CAMERA,
    CameraProfile,
    Camids,
    Places,
    Standardizer,
    UnknownCamera,
    manifest_with_profile,
    read_camera_profile,
)
from reidruntime.artifact.checks import check_external_data, check_inference_mode, check_manifest
from reidruntime.artifact.manifest import METADATA_KEY, ChannelOrder, Manifest, Precision, file_sha256
from reidruntime.artifact.onnx_metadata import read_onnx
from reidruntime.artifact.own_manifest import ENGINE_SUFFIXES, artifact_manifest
from reidruntime.backends import (
    BACKENDS,
    Backend,
    BackendName,
    DeviceName,
    Network,
    PipelinedBackend,
    open_backend,
)
from reidruntime.device_memory import MemoryName
from reidruntime.errors import ArtifactError, ImageError, InputError
from reidruntime.images.batch_reader import open_batch_reader, read_ahead
from reidruntime.images.depth import DEPTHS, Depth
from reidruntime.images.preprocess import Image, in_rgb, network_input
from reidruntime.images.resize import Image8
from reidruntime.row_check import check_rows
from reidruntime.tensorrt_library import DEFAULT_BATCH
from reidruntime.threads import default_threads

Features = NDArray[np.float32]


@dataclass(frozen=True)
class SessionOptions:
    """What runs an artifact, and where.

    Attributes:
        backend: one of :data:`reidruntime.backends.BACKENDS`, or ``"auto"``: the fastest one installed, in the order
            that :func:`reidruntime.backends.choose` gives. An engine runs on ``"tensorrt"`` only.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"``: CUDA where it can be used.
        threads: for the network, and as many again for reading images; default: the CPUs that this process may use.
        memory: what provides an engine's device memory: ``"cuda-python"`` (default), ``"torch"`` or ``"pycuda"``.
        allow_host_code: load a version-compatible engine, which runs code that it carries.
        depth: what to do with image files of more than 8 bits a channel: ``"refuse"`` them, or ``"scale"`` their whole
            range to 8 bits (:func:`reidruntime.images.depth.rgb_pixels`).
        unknown_camera: what to do with an image whose camera a camera profile does not have: ``"refuse"`` it, or take
            the ``"mean"`` of all crops of the site.
    """

    backend: BackendName = "auto"
    device: DeviceName = "auto"
    threads: int | None = None
    memory: MemoryName | None = None
    allow_host_code: bool = False
    depth: Depth = "refuse"
    unknown_camera: UnknownCamera = "refuse"


DEFAULT_OPTIONS = SessionOptions()


def open_session(
    artifact: str | Path,
    options: SessionOptions = DEFAULT_OPTIONS,
    *,
    manifest: Manifest | None = None,
    cameras: str | Path | None = None,
) -> "Session":
    """Check an artifact against its manifest and load it.

    An ONNX file that carries no manifest answers a few images of noise, alone and in a batch, before it is trusted.

    Args:
        artifact: an ONNX file, or a TensorRT engine (``.engine``, ``.plan``) with its manifest beside it.
        options: what runs it, and where.
        manifest: the facts about a file that carries none (see
            :func:`reidruntime.artifact.foreign.manifest_for_foreign_onnx`); takes precedence over the file's own.
        cameras: a camera profile of the artifact, ``NAME.cameras.json``, that ``reidexport adapt`` wrote: features are
            standardized by the camera of each image, whose ``camids`` are then needed.

    Returns:
        A session, which closes itself at the end of a ``with`` block.

    Raises:
        ArtifactError: the file is unreadable, has no manifest, or is not what its manifest states; or it is an ONNX
            file without a manifest of its own that computes as in training, or answers an image by the batch around it;
            or the camera profile is not valid, or belongs to another artifact.
        InputError: an option has a value that does not exist.
        NotInstalledError: the backend or device is missing, or ``REIDRUNTIME_LIBRARY`` names a library that cannot
            be used (see :mod:`reidruntime.images.batch_reader`); nothing else is used in its place.
        GpuError: the GPU and a backend for it exist, and do not start; nothing else is used in their place.
    """
    path = Path(artifact)
    threads = default_threads() if options.threads is None else options.threads
    if threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}.")
    if options.depth not in DEPTHS:
        raise InputError(f"depth must be {' or '.join(DEPTHS)}, got {options.depth!r}.")
    if options.unknown_camera not in UNKNOWN_CAMERA:
        raise InputError(
            f"unknown_camera must be {' or '.join(UNKNOWN_CAMERA)}, got {options.unknown_camera!r}."
        )
    with ExitStack() as opened:
        session = opened.enter_context(_open(path, options, threads, manifest))
        if cameras is not None:
            profile = read_camera_profile(Path(cameras), path, session.manifest)
            networks = _open_networks(profile, path, session.manifest, options, threads)
            session.use_profile(profile, options.unknown_camera, networks)
        opened.pop_all()
    return session


def _open(path: Path, options: SessionOptions, threads: int, manifest: Manifest | None) -> "Session":
    if path.suffix in ENGINE_SUFFIXES:
        return _open_engine(path, options, threads, manifest)
    if options.memory is not None or options.allow_host_code:
        raise InputError(
            f"{path}: memory and allow_host_code are for TensorRT engines, this is an ONNX file."
        )
    manifest, file = manifest or artifact_manifest(path), read_onnx(path)
    check_external_data(file, path)
    check_manifest(manifest, file, path)
    is_foreign = METADATA_KEY not in file.metadata
    if is_foreign:
        check_inference_mode(file, path)
    network = Network(
        path,
        manifest.input,
        manifest.output,
        manifest.precision,
        depthwise=manifest.architecture.backbone.startswith("osnet"),
        by_definition=manifest.quantization is not None and manifest.quantization.target == "tensorrt",
    )
    name, loaded = open_backend(network, options.backend, options.device, threads)
    session = Session(manifest, name, loaded, threads, options.depth)
    if is_foreign:
        try:
            check_rows(session.run, manifest, session.precision, path)
        except ArtifactError:
            session.close()
            raise
    return session


def _open_networks(
    profile: CameraProfile, artifact: Path, manifest: Manifest, options: SessionOptions, threads: int
) -> dict[int, "Session"]:
    """The sessions of cameras that have a network of their own, whose files lie beside the artifact."""
    with ExitStack() as opened:
        networks: dict[int, Session] = {}
        for camera in profile.cameras:
            if camera.network is None:
                continue
            file = artifact.with_name(camera.network.name)
            if not file.is_file() or file_sha256(file) != camera.network.sha256:
                raise ArtifactError(
                    f"{file}: the network of camera {camera.camid + 1} is missing, or not the one that the camera "
                    "profile was measured with. Copy all files that reidexport adapt wrote."
                )
            session = opened.enter_context(_open(file, options, threads, None))
            if _takes_and_gives(session.manifest) != _takes_and_gives(manifest):
                raise ArtifactError(
                    f"{file}: the network of camera {camera.camid + 1} takes other images or gives other features than "
                    f"{artifact.name}. Write all files again: reidexport adapt CHECKPOINT CROPS -o FILE --per-camera."
                )
            networks[camera.camid] = session
        opened.pop_all()
    return networks


def _takes_and_gives(manifest: Manifest) -> tuple[object, ...]:
    given = manifest.feature, manifest.normalized, manifest.flip, manifest.metric
    return manifest.input, manifest.preprocess, manifest.batch_profile, manifest.output, *given


def _open_engine(path: Path, options: SessionOptions, threads: int, manifest: Manifest | None) -> "Session":
    from reidruntime.backends.tensorrt import TensorRtBackend

    if options.backend not in ("auto", "tensorrt") or options.device == "cpu":
        raise InputError(
            f"{path}: a TensorRT engine runs with TensorRT on a GPU. Leave backend and device out."
        )
    if not path.is_file():
        raise ArtifactError(f"{path}: there is no such file.")
    manifest = manifest or artifact_manifest(path)
    loaded = TensorRtBackend(
        path, manifest, memory=options.memory or "cuda-python", allow_host_code=options.allow_host_code
    )
    return Session(manifest, "tensorrt", loaded, threads, options.depth)


def chosen_batch_size(manifest: Manifest, wanted: int | None, default: int = DEFAULT_BATCH) -> int:
    """Images per run of the network: what is wanted, or else the artifact's optimum; within its limit.

    Args:
        manifest: of the artifact.
        wanted: by the caller, or None.
        default: for an artifact that has no optimum: what suits the device, see
            :func:`reidruntime.tensorrt_library.default_batch_size`.

    Raises:
        InputError: ``wanted`` is less than 1.
    """
    if wanted is not None and wanted < 1:
        raise InputError(f"batch_size must be at least 1, got {wanted}.")
    profile = manifest.batch_profile
    size = wanted or profile.optimum or profile.static or default
    return min(size, profile.maximum) if profile.maximum else size


def image_name(image: Image, position: int) -> str:
    """What to call an image in an error: its path, or its position."""
    return str(image) if isinstance(image, str | Path) else f"Image {position}"


class Session(AbstractContextManager["Session"]):
    """An opened artifact; made by :func:`open_session`. One caller at a time.

    Attributes:
        manifest: the facts about the artifact.
        backend: its name, or ``"torch"`` for a checkpoint that PyTorch runs.
        depth: what becomes of image files of more than 8 bits a channel, see :class:`SessionOptions`.
        description: one line: backend and version, device, threads, computing precision, image reading.
    """

    def __init__(
        self, manifest: Manifest, backend: str, loaded: Backend, threads: int, depth: Depth = "refuse"
    ) -> None:
        self.manifest = manifest
        self.backend = backend
        self.depth: Depth = depth
        self._reader = open_batch_reader(manifest.preprocess, threads, depth)
        self.description = f"{loaded.describe()}; {self._reader.describe()}"
        self._network: Backend | None = loaded
        self._has_profile = False
        self._standardizer: Standardizer | None = None
        self._networks: dict[int, Session] = {}  # of cameras that have one, by place in the profile

    def use_profile(
        self, profile: CameraProfile, unknown: UnknownCamera, networks: dict[int, "Session"] | None = None
    ) -> None:
        """Change features by the cameras of their images from now on; the manifest says so.

        Args:
            profile: that belongs to the artifact.
            unknown: what to do with images of other cameras, see :class:`SessionOptions`.
            networks: of the cameras that have one of their own, by camid; closed with this session.
        """
        self._has_profile = True
        if not profile.changes_features:
            return
        self._standardizer = Standardizer(profile, unknown, unit_length=self.manifest.normalized)
        self._networks = {
            place: networks[camera.camid]
            for place, camera in enumerate(profile.cameras)
            if networks and camera.camid in networks
        }
        self.manifest = manifest_with_profile(self.manifest, profile)

    @property
    def camids(self) -> tuple[int, ...]:
        """The cameras of the profile in use, from 0: every image must then come with its own. Empty without one."""
        return () if self._standardizer is None else tuple(self._standardizer.camids.tolist())

    @property
    def precision(self) -> Precision | Literal["bf16"]:
        """What the backend computes in: the artifact's precision, or one of its own."""
        facts = BACKENDS.get(self.backend)
        return (facts and facts.computes_in) or self.manifest.precision

    def embed(
        self,
        images: Sequence[Image],
        *,
        camids: Camids | None = None,
        batch_size: int | None = None,
        channel_order: ChannelOrder = "RGB",
        progress: Callable[[int], None] | None = None,
    ) -> Features:
        """Embed images.

        Args:
            images: paths, contents of image files (:class:`EncodedImage`), and uint8 arrays of shape (H, W, 3) of any
                size, in any mixture.
            camids: of a session with a camera profile: the number of each image's camera, from 0.
            batch_size: images per run of the network; default: the artifact's optimum, or what suits the device,
                which is 32 on a CPU.
            channel_order: of the arrays among the images: ``"BGR"`` for those that OpenCV read. What the network takes
                is the manifest's, and done here.
            progress: called with the number of images done after every batch.

        Returns:
            float32, shape (len(images), feature dimension); row i belongs to image i. Rows are of unit length only
            where ``manifest.normalized`` is true.

        Raises:
            ImageError: an image cannot be read; the message names it.
            InputError: ``images`` is a single path, there is no such ``channel_order``, or the session is closed; or
                camids are given without a camera profile, or missing with one, or of a camera that it does not have.
            ArtifactError: the network fails on a batch.
        """
        if isinstance(images, str | Path):
            raise InputError(f"Expected a list of images, got the single path {str(images)!r}.")
        if camids is not None:  # before anything is embedded
            self._places(camids, len(images), lambda i: image_name(images[i], i))
        features = np.empty((len(images), self.manifest.architecture.feature_dim), np.float32)
        batches = self.embed_batches(
            images,
            camid_of=None if camids is None else camids.__getitem__,
            batch_size=batch_size,
            channel_order=channel_order,
        )
        for indices, rows in batches:
            features[indices] = rows
            if progress:
                progress(indices[-1] + 1)
        return features

    def embed_batches(
        self,
        images: Iterable[Image],
        *,
        camid_of: Callable[[int], int] | None = None,
        batch_size: int | None = None,
        channel_order: ChannelOrder = "RGB",
        on_bad_image: Callable[[int, ImageError], None] | None = None,
    ) -> Generator[tuple[list[int], Features], None, None]:
        """Embed a stream of images, holding only a few batches of it in memory.

        Worker threads read the next batches while the network answers one.

        Args:
            images: as for :meth:`embed`, but any iterable.
            camid_of: of a session with a camera profile: the number of the camera, from 0, of the image at a position.
            batch_size: as for :meth:`embed`.
            channel_order: as for :meth:`embed`.
            on_bad_image: called with the position and the error of an image that cannot be read, which is
                then left out; default: the error is raised.

        Yields:
            The positions of a batch's images, and their features: float32, shape (n, feature dimension).
        """
        if channel_order not in ("RGB", "BGR"):
            raise InputError(f"channel_order must be RGB or BGR, got {channel_order!r}.")
        network = self._network
        size = chosen_batch_size(
            self.manifest, batch_size, getattr(network, "preferred_batch", DEFAULT_BATCH)
        )
        in_flight = network.in_flight if isinstance(network, PipelinedBackend) else 1
        started: deque[tuple[list[int], Callable[[], Features]]] = deque()
        in_order = (in_rgb(image, channel_order) for image in images)
        with closing(read_ahead(in_order, size, self._reader, self._batch_memory)) as batches:
            try:
                for indices, pixels, errors in batches:
                    for index, error in errors.items():
                        if on_bad_image is None:
                            raise error
                        on_bad_image(index, error)
                    if indices:
                        camids = None if camid_of is None else [camid_of(index) for index in indices]
                        places = self._places(camids, len(indices), lambda i: f"Image {i} of a batch")
                        started.append((indices, self._start(pixels, places)))
                    if len(started) >= in_flight:
                        indices, answer = started.popleft()
                        yield indices, answer()
                while started:
                    indices, answer = started.popleft()
                    yield indices, answer()
            finally:
                for _, answer in started:
                    answer()  # a batch under way holds buffers until its answer is fetched

    def run(self, batch: Image8, camids: Camids | None = None) -> Features:
        """Answer images that already have the artifact's size and channel order.

        Args:
            batch: uint8, shape (N, height_px, width_px, 3), any N: it is split and padded as the artifact's
                batch profile needs.
            camids: as for :meth:`embed`.

        Returns:
            float32, shape (N, feature dimension).

        Raises:
            InputError: the batch has another dtype or shape, or the session is closed; or as for :meth:`embed`.
            ArtifactError: the network fails on the batch.
        """
        wanted = (self.manifest.preprocess.height_px, self.manifest.preprocess.width_px, 3)
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != wanted:
            raise InputError(
                f"Expected a uint8 batch of shape (N, {wanted[0]}, {wanted[1]}, 3), "
                f"got {batch.dtype} of shape {batch.shape}."
            )
        places = self._places(camids, len(batch), lambda i: f"Image {i} of the batch")
        limit = self.manifest.batch_profile.maximum or max(len(batch), 1)
        parts = [
            self._start(batch[some], None if places is None else places[some])()
            for some in (slice(start, start + limit) for start in range(0, len(batch), limit))
        ]
        no_features = np.empty((0, self.manifest.architecture.feature_dim), np.float32)
        return np.concatenate(parts) if parts else no_features

    def run_tensor(self, images: Any) -> Any:
        """Answer a torch tensor that is on the GPU, which it does not leave; TensorRT engines and torch-cuda only.

        Args:
            images: as the artifact's own input: its dtype, layout and a batch within its profile.

        Returns:
            A torch tensor on the GPU, shape (N, feature dimension), ready in the order of torch's current stream.

        Raises:
            InputError: the backend does not take tensors, or this one is not of the right dtype, shape or device; or
                a camera profile is in use, which is not for tensors.
            GpuError: the GPU fails.
        """
        if self._standardizer is not None:
            raise InputError(
                "A camera profile is in use, which changes arrays only. Call run(), or leave it out."
            )
        if not isinstance(self._network, PipelinedBackend):
            raise InputError(
                f"Backend {self.backend} takes arrays, not tensors on a GPU. Open a TensorRT engine, or use backend "
                "torch-cuda."
            )
        spec, profile = self.manifest.input, self.manifest.batch_profile
        dtype, shape = str(images.dtype).removeprefix("torch."), tuple(images.shape)
        device = self._network.tensor_device
        wanted = f"a {spec.dtype} tensor of shape {('N', *spec.shape[1:])}"
        if isinstance(images, np.ndarray):
            raise InputError(f"Expected {wanted} on {device}, got an array. Pass arrays to run().")
        if dtype != spec.dtype or shape[1:] != spec.shape[1:] or images.device.type != device:
            raise InputError(
                f"Expected {wanted} on {device}, got {dtype} of shape {shape} on {images.device}."
            )
        if not profile.minimum <= shape[0] <= (profile.maximum or shape[0]):
            raise InputError(f"Expected a batch of {profile.minimum} to {profile.maximum}, got {shape[0]}.")
        return self._network.run_tensor(images)

    def _places(self, camids: Camids | None, num_images: int, name_of: Callable[[int], str]) -> Places | None:
        """Where the statistics for images stand, by their cameras; None where no profile changes features."""
        if camids is not None and len(camids) != num_images:
            raise InputError(f"Expected a camid for each of {num_images} images, got {len(camids)}.")
        standardizer = self._standardizer
        if standardizer is None:
            if camids is not None and not self._has_profile:
                raise InputError(
                    "camids are for a camera profile: open_session(…, cameras=PROFILE), or leave them out."
                )
            return None
        if camids is None:
            if standardizer.refuses_unknown:
                raise InputError(
                    "A camera profile is in use: pass the camera of each image, camids=[0, 3, …]."
                )
            camids = np.full(num_images, -1)
        return standardizer.places(camids, name_of)

    def check_camera(self, camid: int, name: str) -> None:
        """Raise InputError for an image of a camera that the profile in use does not have, and is to refuse."""
        if self._standardizer is not None:
            self._standardizer.places([camid], lambda _: name)

    def close(self) -> None:
        """Release the network's memory; the session cannot be used any more."""
        if isinstance(self._network, PipelinedBackend):
            self._network.close()
        self._network = None
        for network in self._networks.values():
            network.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _batch_memory(self, num_images: int) -> Image8:
        """Where a batch is read to: page-locked, where a GPU takes the pixels as they are."""
        network, spec, preprocess = self._network, self.manifest.input, self.manifest.preprocess
        shape = (num_images, preprocess.height_px, preprocess.width_px, 3)
        if isinstance(network, PipelinedBackend) and (spec.dtype, spec.shape[1:]) == ("uint8", shape[1:]):
            return network.host_array(num_images)
        return np.empty(shape, np.uint8)

    def _start(self, batch: Image8, places: Places | None) -> Callable[[], Features]:
        """Start a batch; its answer is standardized by the cameras of the images, where a profile is in use."""
        standardizer = self._standardizer
        if standardizer is None or places is None:
            return self._start_network(batch)
        answer = self._start_by_camera(batch, places) if self._networks else self._start_network(batch)
        return lambda: standardizer(answer(), places)

    def _start_by_camera(self, batch: Image8, places: Places) -> Callable[[], Features]:
        """Start the images of each camera on its own network, those of others on the artifact's."""
        started = []
        own = np.where(np.isin(places, list(self._networks)), places, -1)
        for place in np.unique(own).tolist():
            some = np.flatnonzero(own == place)
            started.append((some, self._networks.get(place, self)._start_network(batch[some])))

        def answer() -> Features:
            features = np.empty((len(batch), self.manifest.architecture.feature_dim), np.float32)
            for some, rows in started:
                features[some] = rows()
            return features

        return answer

    def _start_network(self, batch: Image8) -> Callable[[], Features]:
        """Start a batch, its last row repeated up to the smallest batch that the artifact takes."""
        network = self._network
        if network is None:
            raise InputError("The session is closed. Open it again with open_session().")
        missing = max(self.manifest.batch_profile.minimum - len(batch), 0)
        padded = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
        fed = network_input(padded, self.manifest)
        answer = network.submit(fed) if isinstance(network, PipelinedBackend) else partial(network.run, fed)
        return lambda: answer().reshape(len(padded), -1)[: len(batch)].astype(np.float32, copy=False)
