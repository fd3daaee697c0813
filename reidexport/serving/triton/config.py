"""The configurations of Triton's models, from manifests; messages of Triton's own protobuf schema."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from reidruntime import Manifest
from reidruntime.artifact.camera_profile import UnknownCamera
from reidruntime.artifact.manifest import METADATA_KEY, TensorSpec
from reidruntime.session import DEFAULT_OPTIONS, SessionOptions
from reidruntime.triton import CAMID_INPUT
from tritonclient.grpc import model_config_pb2 as schema

from reidexport.errors import InputError

DEFAULT_MAX_BATCH = 32
JPEG_INPUT = "jpeg"
_QUEUE = schema.ModelQueuePolicy(max_queue_size=256)  # more are refused at once, so that clients slow down
_TYPES = {"uint8": schema.TYPE_UINT8, "float32": schema.TYPE_FP32, "float16": schema.TYPE_FP16}

ModelConfig = Any  # schema.ModelConfig, which has no types
Place = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Batching:
    """How requests are gathered: ``max_batch`` images at most (None: what the artifact answers, or 32).

    A batch that is not full waits ``max_queue_delay_us`` for more.
    """

    max_batch: int | None = None
    max_queue_delay_us: int = 500


class Ports(NamedTuple):
    """Where one server listens for each protocol."""

    http: int
    grpc: int
    metrics: int


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where a server on this machine listens (a port of 0 is any free one), what it refuses, and how it answers.

    Each of the ``instances`` answers a batch at a time, in a process with a ``session`` of its own; by default they
    share the CPUs. ``cameras`` is a camera profile of the artifact.
    """

    host: str
    ports: Ports
    max_request_bytes: int
    batching: Batching
    session: SessionOptions = DEFAULT_OPTIONS
    cameras: Path | None = None
    instances: int = 1


def model_name(artifact: Path) -> str:
    """A name for a file's model: what of the file's name may stand in a URL."""
    return re.sub(r"[^\w.-]", "_", artifact.stem, flags=re.ASCII)


def file_network(
    name: str, manifest: Manifest, batching: Batching, *, place: Place, instances: int
) -> ModelConfig:
    """A network that Triton's own backend loads: ``1/model.onnx`` or ``1/model.plan``, with its own input.

    A static batch is served as it is: Triton cannot fill it up from several requests.

    Raises:
        InputError: the artifact does not take batches from 1 up, or not as many as ``batching`` wants.
    """
    profile = manifest.batch_profile
    if profile.minimum > 1 and profile.static is None:
        raise InputError(
            f"{name}: it takes {profile.minimum} to {profile.maximum} images, and Triton forms batches from 1 up. "
            "Build it with --batch-profile 1:…"
        )
    static = profile.static is not None
    max_batch = 0 if static else _max_batch(name, manifest, batching)
    config = schema.ModelConfig(
        name=name,
        backend="tensorrt" if manifest.engine else "onnxruntime",
        max_batch_size=max_batch,
        input=[_tensor(schema.ModelInput, manifest.input, static)],
        output=[_tensor(schema.ModelOutput, manifest.output, static)],
        instance_group=[schema.ModelInstanceGroup(kind=f"KIND_{place.upper()}", count=instances)],
        dynamic_batching=None if static else _dynamic_batching(manifest, max_batch, batching),
        parameters=_parameters({METADATA_KEY: manifest.to_json()}),
    )
    if place == "gpu" and not manifest.engine and manifest.precision == "fp32":
        # Left alone, CUDA computes the convolutions of an fp32 file in TF32, with 10 bits of mantissa.
        config.optimization.execution_accelerators.gpu_execution_accelerator.add(
            name="cuda", parameters={"use_tf32": "0"}
        )
    return config


def session_network(
    name: str, manifest: Manifest, artifact: Path, options: ServerOptions, *, takes_camids: bool
) -> ModelConfig:
    """A network that this project's runtime answers for, in Triton's Python backend: any artifact, any batch.

    Its input is ``images``: uint8 pixels, (N, height, width, 3); and ``camid``, (N, 1), where it takes camids.

    Raises:
        InputError: the artifact does not answer as many images as ``options.batching`` wants.
    """
    pixels = (manifest.preprocess.height_px, manifest.preprocess.width_px, 3)
    max_batch = _max_batch(name, manifest, options.batching)
    profile = {"cameras": str(options.cameras.resolve())} if options.cameras else {}
    config = schema.ModelConfig(
        name=name,
        backend="python",
        max_batch_size=max_batch,
        input=[schema.ModelInput(name="images", data_type=schema.TYPE_UINT8, dims=pixels)],
        output=[_session_features(manifest)],
        # Processes; their sessions choose the device.
        instance_group=[schema.ModelInstanceGroup(kind="KIND_CPU", count=options.instances)],
        dynamic_batching=_dynamic_batching(manifest, max_batch, options.batching),
        parameters=_parameters({
            METADATA_KEY: manifest.to_json(),
            "artifact": str(artifact.resolve()),
            "backend": options.session.backend,
            "device": options.session.device,
            "threads": str(options.session.threads),
            "unknown_camera": options.session.unknown_camera,
            **profile,
        }),
    )  # fmt: skip
    if takes_camids:
        config.input.append(_one_for_each_image(CAMID_INPUT, schema.TYPE_INT32, config))
    return config


def decoder(name: str, manifest: Manifest, network: ModelConfig) -> ModelConfig:
    """What makes the input of ``network`` from the bytes of image files, in Triton's Python backend."""
    fed = network.input[0]
    form = "pixels" if network.backend == "python" else "input"
    return _python_step(
        name,
        network,
        input=[_one_for_each_image(JPEG_INPUT, schema.TYPE_STRING, network)],
        output=[schema.ModelOutput(name=fed.name, data_type=fed.data_type, dims=fed.dims)],
        parameters=_parameters({METADATA_KEY: manifest.to_json(), "output": form}),
    )


def standardizer(
    name: str, manifest: Manifest, network: ModelConfig, unknown: UnknownCamera, *, takes_camids: bool
) -> ModelConfig:
    """What applies a camera profile to the features of ``network``, in Triton's Python backend.

    Its inputs are the network's output, with ``raw_`` before its name, and ``camid`` where it takes camids.

    Args:
        name: of the model.
        manifest: of the standardized features.
        network: that Triton's own backend runs.
        unknown: what to do with images of cameras that the profile does not have.
        takes_camids: whether the profile tells cameras apart.
    """
    raw = network.output[0]
    camids = [_one_for_each_image(CAMID_INPUT, schema.TYPE_INT32, network)] if takes_camids else []
    return _python_step(
        name,
        network,
        input=[schema.ModelInput(name=f"raw_{raw.name}", data_type=raw.data_type, dims=raw.dims), *camids],
        output=[_session_features(manifest, [] if network.max_batch_size else raw.dims[:1])],
        parameters=_parameters({METADATA_KEY: manifest.to_json(), "unknown_camera": unknown}),
    )


def jpeg_ensemble(name: str, steps: Sequence[ModelConfig]) -> ModelConfig:
    """Bytes of image files in, embeddings out: each step takes what the one before gives, and camids if it wants."""
    first, last = steps[0], steps[-1]
    config = schema.ModelConfig(
        name=name,
        platform="ensemble",
        max_batch_size=first.max_batch_size,
        input=[first.input[0], *(camids for step in steps for camids in step.input[1:])],
        output=list(last.output),
    )
    taken = [*(step.input[0].name for step in steps[1:]), last.output[0].name]
    for step, goes_to in zip(steps, taken, strict=True):
        config.ensemble_scheduling.step.add(
            model_name=step.name,
            model_version=-1,
            input_map={each.name: each.name for each in step.input},
            output_map={step.output[0].name: goes_to},
        )
    return config


def _python_step(name: str, network: ModelConfig, **fields: Any) -> ModelConfig:
    """A model in Triton's Python backend, before or behind ``network`` and in batches of the same size."""
    # Those that wait are answered together; none waits for more.
    batching = schema.ModelDynamicBatching(default_queue_policy=_QUEUE) if network.max_batch_size else None
    return schema.ModelConfig(
        name=name,
        backend="python",
        max_batch_size=network.max_batch_size,
        instance_group=[schema.ModelInstanceGroup(kind="KIND_CPU", count=1)],
        dynamic_batching=batching,
        **fields,
    )


def _max_batch(name: str, manifest: Manifest, batching: Batching) -> int:
    limit = manifest.batch_profile.maximum
    if batching.max_batch and limit and batching.max_batch > limit:
        raise InputError(f"{name}: batches of {batching.max_batch} do not fit, it answers at most {limit}.")
    return batching.max_batch or limit or DEFAULT_MAX_BATCH


def _dynamic_batching(manifest: Manifest, max_batch: int, batching: Batching) -> Any:
    optimum = manifest.batch_profile.optimum
    return schema.ModelDynamicBatching(
        preferred_batch_size=sorted({min(optimum, max_batch), max_batch}) if optimum else [],
        max_queue_delay_microseconds=batching.max_queue_delay_us,
        default_queue_policy=_QUEUE,
    )


def _tensor(message: Any, spec: TensorSpec, static: bool) -> Any:
    """Triton adds the batch to the dimensions of a model that has a ``max_batch_size``."""
    return message(
        name=spec.name, data_type=_TYPES[spec.dtype], dims=spec.shape if static else spec.shape[1:]
    )


def _session_features(manifest: Manifest, batch: Sequence[int] = ()) -> Any:
    """Features as sessions give them; ``batch`` is the number of images in a static one."""
    dims = [*batch, manifest.architecture.feature_dim]
    return schema.ModelOutput(name=manifest.output.name, data_type=schema.TYPE_FP32, dims=dims)


def _one_for_each_image(name: str, data_type: int, network: ModelConfig) -> Any:
    """An input of one value for each image that ``network`` takes."""
    dims = [1] if network.max_batch_size else network.input[0].dims[:1]
    return schema.ModelInput(name=name, data_type=data_type, dims=dims)


def _parameters(values: dict[str, str]) -> dict[str, Any]:
    return {key: schema.ModelParameter(string_value=value) for key, value in values.items()}
