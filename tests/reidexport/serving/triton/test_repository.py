"""A model repository says what its artifacts are, in Triton's own schema, and is written whole or not at all."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from reidruntime.artifact.camera_profile import manifest_with_profile
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
from tests.standins.camera_profiles import small_profile, write_profile
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

FP32, INT32 = schema.TYPE_FP32, schema.TYPE_INT32
GPU, CPU = schema.ModelInstanceGroup.KIND_GPU, schema.ModelInstanceGroup.KIND_CPU


def read_config(model: Path) -> Any:
    """A model's configuration, parsed by Triton's schema: a field that it does not have is an error."""
    return text_format.Parse((model / "config.pbtxt").read_text(), schema.ModelConfig())


def inputs(config: Any) -> dict[str, tuple[int, list[int]]]:
    """Type and dimensions of each input of a model."""
    return {each.name: (each.data_type, list(each.dims)) for each in config.input}


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
    assert written == [("a_onnx", "a_onnx_jpeg", None), ("a_tensorrt", "a_tensorrt_jpeg", None)]
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
        stored = np.fromfile(network / "warmup" / f"batch{size}_0.bin", np.float32)
        np.testing.assert_array_equal(stored, normalize(pixels[None], manifest.preprocess).ravel())
        stored_bytes = (decoder / "warmup" / f"batch{size}_0.bin").read_bytes()
        assert stored_bytes == struct.pack("<I", image.stat().st_size) + image.read_bytes()
    config = read_config(network)
    assert [sample.batch_size for sample in config.model_warmup] == [1, 32]
    assert config.model_warmup[0].inputs["planes"].input_data_file == "batch1_0.bin"
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
    file = tmp_path / "models" / "a_onnx" / "warmup" / "batch1_0.bin"
    assert file.stat().st_size == 4 * HEIGHT * WIDTH * 3


def test_a_camera_profile_becomes_a_step_behind_the_network(tmp_path: Path, run: Run) -> None:
    """A third model applies it, with the profile in its folder; image files go through it, and the network stays."""
    artifact, repository = write_artifact(tmp_path / "a.onnx"), tmp_path / "models"
    profile = small_profile(artifact, DIM)
    cameras = write_profile(profile, artifact)
    done = run(
        "bundle", "triton", artifact, "-o", repository, "--cameras", cameras, "--unknown-camera", "mean"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"{repository}/a_onnx, {repository}/a_onnx_jpeg, {repository}/a_onnx_cameras\n"
        "  a_onnx_jpeg gives standardized features, a_onnx those of the network, which a_onnx_cameras standardizes\n"
    )
    network, standardizer, ensemble = (
        read_config(repository / f"a_onnx{part}") for part in ("", "_cameras", "_jpeg")
    )
    assert [each.name for each in network.input] == ["images"]
    assert (standardizer.backend, standardizer.max_batch_size) == ("python", 32)
    assert inputs(standardizer) == {"raw_f_i": (FP32, [DIM]), "camid": (INT32, [1])}
    assert standardizer.output[0] == ensemble.output[0] == network.output[0]
    assert inputs(ensemble) == {"jpeg": (schema.TYPE_STRING, [1]), "camid": (INT32, [1])}
    _, second, third = ensemble.ensemble_scheduling.step
    assert dict(second.output_map) == {"f_i": "raw_f_i"}
    assert dict(third.input_map) == {"raw_f_i": "raw_f_i", "camid": "camid"}
    assert (third.model_name, dict(third.output_map)) == ("a_onnx_cameras", {"f_i": "f_i"})
    assert standardizer.parameters["unknown_camera"].string_value == "mean"
    manifest = manifest_from_json(standardizer.parameters[METADATA_KEY].string_value, "test")
    assert manifest == manifest_with_profile(small_manifest(), profile)
    version = repository / "a_onnx_cameras" / "1"
    assert (version / "cameras.json").read_bytes() == cameras.read_bytes()
    assert "reidruntime.triton.standardize" in (version / "model.py").read_text()


def test_a_profile_of_a_static_batch_is_applied_to_all_of_it(tmp_path: Path) -> None:
    """There is a camid for each image of the batch, which is part of every shape."""
    artifact = write_artifact(tmp_path / "a.onnx", batch=4)
    write_repository(
        [artifact], tmp_path / "models", cameras=write_profile(small_profile(artifact, DIM), artifact)
    )
    standardizer, ensemble = (
        read_config(tmp_path / "models" / f"a_onnx_{part}") for part in ("cameras", "jpeg")
    )
    assert inputs(standardizer) == {"raw_f_i": (FP32, [4, DIM]), "camid": (INT32, [4])}
    assert list(standardizer.output[0].dims) == list(ensemble.output[0].dims) == [4, DIM]
    assert inputs(ensemble)["camid"] == (INT32, [4])


def test_only_a_profile_with_cameras_asks_for_them(tmp_path: Path, run: Run) -> None:
    """One without cameras takes no camids; one that changes nothing adds no model, and that is said."""
    artifact, repository = write_artifact(tmp_path / "a.onnx"), tmp_path / "models"
    cameras = write_profile(small_profile(artifact, DIM, camids=()), artifact)
    assert write_repository([artifact], repository, cameras=cameras)[0].cameras == "a_onnx_cameras"
    assert list(inputs(read_config(repository / "a_onnx_cameras"))) == ["raw_f_i"]
    assert list(inputs(read_config(repository / "a_onnx_jpeg"))) == ["jpeg"]
    write_profile(small_profile(artifact, DIM, standardizes=False), artifact)
    done = run("bundle", "triton", artifact, "-o", tmp_path / "plain", "--cameras", cameras)
    assert f"  {cameras} leaves features as they are\n" in done.stdout
    assert not (tmp_path / "plain" / "a_onnx_cameras").exists()


def test_profiles_that_a_bundle_cannot_apply_are_refused(tmp_path: Path) -> None:
    """Those with a network for each camera, those of other artifacts, and one for several."""
    artifact = write_artifact(tmp_path / "a.onnx")
    other = write_artifact(tmp_path / "b.onnx", batch=2)
    own = write_artifact(tmp_path / "a-c3.onnx")
    cameras = write_profile(small_profile(artifact, DIM, networks={2: own}), artifact)
    with pytest.raises(
        ArtifactError, match=r"a network for each camera.*--per-camera, or use reidexport serve"
    ):
        write_repository([artifact], tmp_path / "models", cameras=cameras)
    with pytest.raises(ArtifactError, match=r"the profile was measured on the features of a\.onnx"):
        write_repository([other], tmp_path / "models", cameras=cameras)
    with pytest.raises(InputError, match=r"a camera profile is of one artifact, got 2\."):
        write_repository([artifact, other], tmp_path / "models", cameras=cameras)
    assert not (tmp_path / "models").exists()


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
