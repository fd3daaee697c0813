"""The configurations of Triton's models, from manifests; messages of Triton's own protobuf schema."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from reidruntime import Manifest
from reidruntime.artifact.manifest import METADATA_KEY, TensorSpec
from reidruntime.session import DEFAULT_OPTIONS, SessionOptions
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
    share the CPUs.
    """

    host: str
    ports: Ports
    max_request_bytes: int
    batching: Batching
    session: SessionOptions = DEFAULT_OPTIONS
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


def session_network(name: str, manifest: Manifest, artifact: Path, options: ServerOptions) -> ModelConfig:
    """A network that this project's runtime answers for, in Triton's Python backend: any artifact, any batch.

    Its input is ``images``: uint8 pixels, (N, height, width, 3).

    Raises:
        InputError: the artifact does not answer as many images as ``options.batching`` wants.
    """
    pixels = (manifest.preprocess.height_px, manifest.preprocess.width_px, 3)
    max_batch = _max_batch(name, manifest, options.batching)
    return schema.ModelConfig(
        name=name,
        backend="python",
        max_batch_size=max_batch,
        input=[schema.ModelInput(name="images", data_type=schema.TYPE_UINT8, dims=pixels)],
        output=[_tensor(schema.ModelOutput, manifest.output, static=False)],
        # Processes; their sessions choose the device.
        instance_group=[schema.ModelInstanceGroup(kind="KIND_CPU", count=options.instances)],
        dynamic_batching=_dynamic_batching(manifest, max_batch, options.batching),
        parameters=_parameters({
            METADATA_KEY: manifest.to_json(),
            "artifact": str(artifact.resolve()),
            "backend": options.session.backend,
            "device": options.session.device,
            "threads": str(options.session.threads),
        }),
    )  # fmt: skip


def decoder(name: str, manifest: Manifest, network: ModelConfig) -> ModelConfig:
    """What makes the input of ``network`` from the bytes of image files, in Triton's Python backend."""
    fed = network.input[0]
    form = "pixels" if network.backend == "python" else "input"
    # Those that wait are decoded together, in threads; none waits for more.
    batching = schema.ModelDynamicBatching(default_queue_policy=_QUEUE) if network.max_batch_size else None
    return schema.ModelConfig(
        name=name,
        backend="python",
        max_batch_size=network.max_batch_size,
        input=[_jpeg_input(network)],
        output=[schema.ModelOutput(name=fed.name, data_type=fed.data_type, dims=fed.dims)],
        instance_group=[schema.ModelInstanceGroup(kind="KIND_CPU", count=1)],
        dynamic_batching=batching,
        parameters=_parameters({METADATA_KEY: manifest.to_json(), "output": form}),
    )


def jpeg_ensemble(name: str, decoding: ModelConfig, network: ModelConfig) -> ModelConfig:
    """Bytes of image files in, embeddings out: ``decoding``, then ``network``."""
    config = schema.ModelConfig(
        name=name,
        platform="ensemble",
        max_batch_size=network.max_batch_size,
        input=[_jpeg_input(network)],
        output=list(network.output),
    )
    fed, answer = network.input[0].name, network.output[0].name
    for model, takes, gives in ((decoding, JPEG_INPUT, fed), (network, fed, answer)):
        config.ensemble_scheduling.step.add(
            model_name=model.name, model_version=-1, input_map={takes: takes}, output_map={gives: gives}
        )
    return config


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


def _jpeg_input(network: ModelConfig) -> Any:
    dims = [1] if network.max_batch_size else network.input[0].dims[:1]
    return schema.ModelInput(name=JPEG_INPUT, data_type=schema.TYPE_STRING, dims=dims)


def _parameters(values: dict[str, str]) -> dict[str, Any]:
    return {key: schema.ModelParameter(string_value=value) for key, value in values.items()}
