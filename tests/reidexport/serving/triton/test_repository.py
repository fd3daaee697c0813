"""A model repository says what its artifacts are, in Triton's own schema, and is written whole or not at all."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from reidruntime.artifact.manifest import (
    METADATA_KEY,
    BatchProfile,
    Engine,
    LayerCounts,
    engine_manifest_path,
    file_sha256,
    manifest_from_json,
)
from reidruntime.errors import ArtifactError, InputError
from reidruntime.images.preprocess import decode_bytes, image_pixels, normalize
from tritonclient.grpc import model_config_pb2 as schema

from reidexport.serving.triton.config import Batching
from reidexport.serving.triton.repository import warm_up_images, write_repository
from tests.conftest import Run
from tests.standins.runtime_models import (
    DIM,
    HEIGHT,
    WIDTH,
    small_manifest,
    tensorrt_quantization,
    write_artifact,
    write_foreign,
    write_normalized,
)

GPU, CPU = schema.ModelInstanceGroup.KIND_GPU, schema.ModelInstanceGroup.KIND_CPU


def read_config(model: Path) -> Any:
    """A model's configuration, parsed by Triton's schema: a field that it does not have is an error."""
    return text_format.Parse((model / "config.pbtxt").read_text(), schema.ModelConfig())


def write_plan(path: Path, profile: BatchProfile | None = None, **changes: object) -> Path:
    """Bytes in the place of a plan, and the manifest of one."""
    path.write_bytes(b"plan")
    engine = Engine(
        flavor="tensorrt",
        tensorrt_version="10.16.1.11",
        onnx_name="a.onnx",
        onnx_sha256="0" * 64,
        plan_sha256=file_sha256(path),
        layers=LayerCounts(network={"fp32": 1}),
    ).model_copy(update=changes)
    profile = profile or BatchProfile(minimum=1, optimum=8, maximum=16)
    engine_manifest_path(path).write_text(small_manifest(engine=engine, batch_profile=profile).to_json())
    return path


def test_an_onnx_file_becomes_three_models_that_fit_each_other(tmp_path: Path, run: Run) -> None:
    """Network, decoder and ensemble: every field is the manifest's, and each step feeds the next."""
    artifact, repository = write_artifact(tmp_path / "my model.onnx"), tmp_path / "models"
    done = run("bundle", "triton", artifact, "-o", repository, "--max-batch", 24, "--max-queue-delay-us", 300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{repository}/my_model_onnx, {repository}/my_model_onnx_jpeg\n"
    network, decoder, ensemble = (
        read_config(repository / f"my_model_onnx{part}") for part in ("", "_decode", "_jpeg")
    )
    assert {path.name for path in repository.iterdir()} == {network.name, decoder.name, ensemble.name}
    assert (network.backend, decoder.backend, ensemble.platform) == ("onnxruntime", "python", "ensemble")
    assert [config.max_batch_size for config in (network, decoder, ensemble)] == [24] * 3
    assert (network.input[0].name, network.input[0].data_type) == ("images", schema.TYPE_UINT8)
    assert list(network.input[0].dims) == [HEIGHT, WIDTH, 3]
    assert (network.output[0].name, network.output[0].data_type) == ("f_i", schema.TYPE_FP32)
    assert list(network.output[0].dims) == [DIM]
    assert [(group.kind, group.count) for group in network.instance_group] == [(CPU, 1)]
    assert network.dynamic_batching.max_queue_delay_microseconds == 300
    assert list(network.dynamic_batching.preferred_batch_size) == []
    for config in (network, decoder):
        parameter = config.parameters[METADATA_KEY].string_value
        assert manifest_from_json(parameter, "test") == small_manifest()
    assert (decoder.output[0].name, list(decoder.output[0].dims)) == ("images", [HEIGHT, WIDTH, 3])
    assert (ensemble.input[0].name, ensemble.input[0].data_type) == ("jpeg", schema.TYPE_STRING)
    assert decoder.input[0] == ensemble.input[0]
    assert ensemble.output[0] == network.output[0]
    first, second = ensemble.ensemble_scheduling.step
    assert (first.model_name, dict(first.input_map)) == (decoder.name, {"jpeg": "jpeg"})
    assert dict(first.output_map) == dict(second.input_map) == {"images": "images"}
    assert (second.model_name, dict(second.output_map)) == (network.name, {"f_i": "f_i"})
    assert (repository / network.name / "1" / "model.onnx").read_bytes() == artifact.read_bytes()


def test_a_plan_runs_on_gpus_in_the_batches_of_its_profile(tmp_path: Path) -> None:
    """Preferred sizes and the largest batch come from the profile; instances are on GPUs."""
    plan = write_plan(tmp_path / "a.engine")
    write_repository([plan], tmp_path / "models", instances=2)
    config = read_config(tmp_path / "models" / "a_tensorrt")
    assert (config.backend, config.max_batch_size) == ("tensorrt", 16)
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 16]
    assert [(group.kind, group.count) for group in config.instance_group] == [(GPU, 2)]
    assert [(sample.name, sample.batch_size) for sample in config.model_warmup] == [
        ("batch 1", 1),
        ("batch 8", 8),
        ("batch 16", 16),
    ]
    assert (tmp_path / "models" / "a_tensorrt" / "1" / "model.plan").read_bytes() == b"plan"
    decoder = read_config(tmp_path / "models" / "a_tensorrt_decode")
    assert [group.kind for group in decoder.instance_group] == [CPU]


def test_both_forms_of_a_network_lie_in_one_repository(tmp_path: Path) -> None:
    """An ONNX file and the plan built from it keep apart; on a GPU float32 stays float32."""
    artifacts = [write_artifact(tmp_path / "a.onnx"), write_plan(tmp_path / "a.engine")]
    written = write_repository(artifacts, tmp_path / "models", device="gpu")
    assert written == {"a_onnx": "a_onnx_jpeg", "a_tensorrt": "a_tensorrt_jpeg"}
    config = read_config(tmp_path / "models" / "a_onnx")
    assert [group.kind for group in config.instance_group] == [GPU]
    (cuda,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (cuda.name, dict(cuda.parameters)) == ("cuda", {"use_tf32": "0"})
    assert not read_config(tmp_path / "models" / "a_tensorrt").optimization.HasField("execution_accelerators")


def test_networks_are_warmed_up_with_images(tmp_path: Path) -> None:
    """The files hold decoded, resized and, where the graph does not do it, normalized images, and their bytes."""
    artifact, manifest = write_normalized(tmp_path / "a.onnx")
    image = tmp_path / "person.jpg"
    image.write_bytes(warm_up_images()[2])
    write_repository([artifact], tmp_path / "models", image_paths=[str(image)])
    pixels = image_pixels(image, "person", manifest.preprocess)
    network, decoder = (tmp_path / "models" / name for name in ("a_onnx", "a_onnx_decode"))
    for size in (1, 32):
        stored = np.fromfile(network / "warmup" / f"batch{size}.bin", np.float32)
        np.testing.assert_array_equal(stored, normalize(pixels[None], manifest.preprocess).ravel())
        stored_bytes = (decoder / "warmup" / f"batch{size}.bin").read_bytes()
        assert stored_bytes == struct.pack("<I", image.stat().st_size) + image.read_bytes()
    config = read_config(network)
    assert [sample.batch_size for sample in config.model_warmup] == [1, 32]
    assert config.model_warmup[0].inputs["planes"].input_data_file == "batch1.bin"
    assert list(read_config(decoder).output[0].dims) == [3, HEIGHT, WIDTH]


def test_drawn_people_stand_in_for_images() -> None:
    """Without images of one's own the warm-up has JPEG files of different people."""
    files = warm_up_images()
    assert len(set(files)) == len(files) == 4
    assert all(np.ptp(decode_bytes(data, "drawn")) > 100 for data in files)
    assert Image.open(io.BytesIO(files[0])).format == "JPEG"


def test_a_static_batch_is_served_as_it_is(tmp_path: Path) -> None:
    """Triton cannot fill a batch of four up: the batch is part of every shape, and nothing is gathered."""
    write_repository([write_artifact(tmp_path / "a.onnx", batch=4)], tmp_path / "models")
    network, decoder, ensemble = (
        read_config(tmp_path / "models" / f"a_onnx{part}") for part in ("", "_decode", "_jpeg")
    )
    assert [config.max_batch_size for config in (network, decoder, ensemble)] == [0] * 3
    assert list(network.input[0].dims) == [4, HEIGHT, WIDTH, 3]
    assert list(ensemble.input[0].dims) == [4]
    assert list(ensemble.output[0].dims) == [4, DIM]
    assert not network.HasField("dynamic_batching")
    file = tmp_path / "models" / "a_onnx" / "warmup" / "batch1.bin"
    assert file.stat().st_size == 4 * HEIGHT * WIDTH * 3


def test_what_triton_cannot_run_is_refused(tmp_path: Path) -> None:
    """The message names the artifact and says what to build or export in its place."""
    manifest = small_manifest(quantization=tensorrt_quantization(), precision="int8")
    q_dq = write_artifact(tmp_path / "q.onnx", manifest=manifest)
    changed = write_plan(tmp_path / "changed.engine")
    changed.write_bytes(b"another plan")
    alone = tmp_path / "alone.engine"
    alone.write_bytes(b"plan")
    narrow = write_plan(tmp_path / "narrow.plan", BatchProfile(minimum=4, optimum=8, maximum=16))
    cases: list[tuple[Path, str]] = [
        (write_foreign(tmp_path / "foreign.onnx"), "carries no manifest"),
        (q_dq, "INT8 in TensorRT's form"),
        (
            write_plan(tmp_path / "rtx.engine", flavor="rtx"),
            "for TensorRT for RTX, which Triton does not load",
        ),
        (write_plan(tmp_path / "stripped.engine", weights_stripped=True), "an engine without weights"),
        (changed, "not the engine that changed.engine.json describes"),
        (alone, "its manifest alone.engine.json is not beside it"),
        (narrow, "takes 4 to 16 images, and Triton forms batches from 1 up"),
        (tmp_path / "none.onnx", "there is no such file"),
    ]
    for artifact, words in cases:
        with pytest.raises(InputError, match=words):
            write_repository([artifact], tmp_path / "models")
    with pytest.raises(InputError, match="batches of 64 do not fit, it answers at most 16"):
        write_repository([write_plan(tmp_path / "a.plan")], tmp_path / "models", batching=Batching(64))
    checkpoint = tmp_path / "model.pth"
    checkpoint.write_bytes(b"weights")
    with pytest.raises(
        ArtifactError, match=r"neither ONNX nor a TensorRT engine\. Export it: reidexport onnx"
    ):
        write_repository([checkpoint], tmp_path / "models")


def test_a_repository_is_whole_or_not_there(tmp_path: Path, run: Run) -> None:
    """A failure leaves nothing behind, and existing files are not written over."""
    first, repository = write_artifact(tmp_path / "a.onnx"), tmp_path / "models"
    second = write_artifact(tmp_path / "a.b.onnx").rename(tmp_path / "a b.onnx")
    third = write_artifact(tmp_path / "a_b.onnx")
    with pytest.raises(InputError, match=r"there is another artifact named a_b_onnx\. Rename one of them"):
        write_repository([first, second, third], repository)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b.onnx", "a.onnx", "a_b.onnx"]
    write_repository([first], repository)
    before = sorted(path.name for path in repository.iterdir())
    done = run("bundle", "triton", second, "-o", repository)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{repository}: exists already. Choose another folder, or remove it first." in done.stderr
    assert sorted(path.name for path in repository.iterdir()) == before
