"""Every architecture against the vectors of its upstream project's own code (tests/golden/README.md).

The network of every case runs in torch. Folding and exporting take seconds each, so that one case of every kind is
exported, and the deep ones are not folded, where tests marked ``slow`` are left out.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from reidruntime.artifact.onnx_graph import read_onnx_graph
from reidruntime.backends.onnx_fusion import fuse
from reidruntime.backends.torch_network import TorchNetwork
from reidruntime.errors import ArtifactError
from torch import Tensor, nn

from reidexport.checkpoint.choices import CheckpointChoices
from reidexport.checkpoint.loading import Checkpoint, load_checkpoint, model_from_checkpoint
from reidexport.checkpoint.reid_folder import weights_file
from reidexport.errors import InputError
from reidexport.export.folding import ScaleShift, fold_batch_norms
from reidexport.export.fp16 import fp16_model
from reidexport.export.graph import GraphOptions, InferenceGraph, graph_from_checkpoint
from reidexport.export.onnx_export import onnx_from_graph
from reidexport.models.baseline import BaselineArchitecture
from reidexport.models.resnet import IBN
from tests.golden import seeded
from tests.standins import checkpoints
from tests.standins.checkpoints import expected, golden_cases, golden_images, normalized, relative_l2

TOLERANCE, FP16_TOLERANCE = 1e-4, 2e-2
_ALWAYS_EXPORTED = """
sb_resnet50_ibn_a sb_se_resnet50 fr_bot_s50 fr_sbs_r50 tr_osnet_ain_x0_25 pv_vit_tiny tr_shufflenet
"""
# The same code as a shallower case, only more of it: drawing their weights takes minutes.
_DEEP = """
sb_resnet101 sb_resnet152 sb_se_resnet101 sb_se_resnext101 sb_senet154 fr_bot_r101_ibn fr_sbs_r101_ibn
cl_vit_b16 cl_vit_b16_sie cl_vit_b16_sie_no_camera cl_vit_b16_stage2 fo_mgn_r50_ibn fo_vit fo_vit_small_stride12
fo_sbs_r50_emb512 fo_agw_r50_emb256 fo_bot_r18 fo_sbs_r34 fo_bot_r34_ibn fo_agw_se_r50_ibn fo_repvgg_b1g4
fo_effnet_b3 fo_resnext50 fo_regnetx_400 la_ft_net_stride1_linear0 la_ft_net_ibn la_hr la_convnext la_swin
la_swinv2 la_dino so_swin_t so_swin_s so_swin_b tn_vit_base tn_vit_base_stride12 tn_vit_base_sie
tn_vit_base_jpm_384 pv_vit_small_256x192 pv_vit_base_384
"""
# torchreid's and LightMBN's that are not deep: the others differ from them in sizes, or from ResNets in a few lines.
_SHALLOW = """
tr_mobilenetv2_x1_0 tr_mlfn tr_hacnn tr_shufflenet tr_squeezenet1_1 tr_densenet121 lm_lmbn_n
"""
ALWAYS_EXPORTED = set(_ALWAYS_EXPORTED.split())
DEEP = set(_DEEP.split()) | {
    name for name, about in golden_cases().items() if name.startswith(("tr_", "lm_")) and "feature" in about
} - set(_SHALLOW.split())
# They have operators that it does not know, which it says.
NOT_FOR_TORCH_CUDA = {"la_hr", "la_swin", "la_swinv2", "la_dino"}
NECKS = {"no": "none", "bnneck": "bnneck", "fc": "fc"}
Record = Callable[[str, object], None]
POOLINGS = {"avg": "avg", "gem": "gem", "gemp": "gem"}


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    """A golden case's checkpoint, written under upstream's names as its project writes it, and read back."""
    case = golden_cases()[request.param]
    path = checkpoints.write_golden(tmp_path_factory.mktemp("golden"), request.param)
    # A plain state dict cannot tell a stride that is not its project's usual one.
    told = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in case.get("choices", {}).items()
    }
    if request.param == "sb_resnet50_stride2":
        told = {"last_stride": 2}
    checkpoint = load_checkpoint(path, CheckpointChoices(**told))
    weights_file(path).unlink()
    assert checkpoint.family == case["family"]
    yield checkpoint


@pytest.fixture
def case(request: pytest.FixtureRequest) -> str:
    """The name of the golden case that ``loaded`` holds."""
    name: str = request.node.callspec.params["loaded"]
    return name


def each_case(
    is_slow: Callable[[str], bool], is_meant: Callable[[dict[str, Any]], bool] = bool
) -> pytest.MarkDecorator:
    """Runs a test on every golden case that is meant, and marks those ``slow`` that take long."""
    cases = [
        pytest.param(name, marks=[pytest.mark.slow] * is_slow(name))
        for name, about in golden_cases().items()
        if is_meant(about)
    ]
    return pytest.mark.parametrize("loaded", cases, indirect=True, scope="module")


every_case = each_case(lambda name: name in DEEP)


def features_of(checkpoint: Checkpoint, images: Tensor, case: str | None = None) -> tuple[Tensor, Tensor]:
    """f_t and f_i of the unfolded network."""
    with torch.inference_mode():
        f_t, f_i = model_from_checkpoint(checkpoint)(normalized(images, case))
    return f_t, f_i


def answers(graph: InferenceGraph, images: Tensor) -> np.ndarray:
    """The graph's features."""
    with torch.inference_mode():
        return graph(images).numpy()


@each_case(lambda name: name in DEEP, lambda about: "stem_relu" in about)
def test_architecture_is_identified(loaded: Checkpoint, case: str) -> None:
    """Names, shapes and family alone tell the upstream architecture, its stem, neck, pooling and input size."""
    about = golden_cases()[case]
    found = loaded.architecture
    assert found == BaselineArchitecture(
        backbone=about["arch"].removesuffix("_fc512"),
        last_stride=about["last_stride"],
        stem_relu=about["stem_relu"],
        stem_pool="ceil" if about["family"] == "fast-reid" and "resnest" not in about["arch"] else "padded",
        non_local=about.get("non_local", False),
        pooling=POOLINGS[about["pooling"]],  # type: ignore[arg-type]
        neck=NECKS[about["neck"]],  # type: ignore[arg-type]
        feature_dim=expected(case, "f_i").shape[1],
        num_classes=about["num_classes"],
    )
    assert (loaded.preprocess.height_px, loaded.preprocess.width_px) == (
        about["height_px"],
        about["width_px"],
    )
    assert loaded.preprocess.resize == ("bicubic" if about["family"] == "fast-reid" else "bilinear")


@pytest.mark.parametrize("name", ["sb_resnet18", "fr_agw_r50", "tr_osnet_x0_25", "tr_osnet_ain_x1_0"])
def test_drawn_weights_and_images_are_those_of_the_vectors(name: str) -> None:
    """The random streams are the ones upstream's code was given, so a failure below is the model's."""
    about, weights = golden_cases()[name], checkpoints.golden_weights(name)
    assert seeded.checksum([golden_images(name).numpy()]) == about["images_crc32"]
    assert seeded.checksum(weights[key].numpy() for key in sorted(weights)) == about["weights_crc32"]


def wanted_features(case: str) -> dict[str, np.ndarray]:
    """What upstream answers to a case's images, by f_t and f_i; one of them where its code gives only that."""
    found = {}
    for feature in ("f_t", "f_i"):
        with suppress(KeyError):
            found[feature] = expected(case, feature)
    return found


def published(case: str) -> np.ndarray:
    """What upstream's own test code answers."""
    return expected(case, golden_cases()[case].get("feature", "f_i"))


@every_case
def test_features_equal_upstreams(loaded: Checkpoint, case: str, record_property: Record) -> None:
    """f_t and f_i of the network in torch are upstream's to a relative L2 error of 1e-4 for each image."""
    found = dict(zip(("f_t", "f_i"), features_of(loaded, golden_images(case), case), strict=True))
    errors = [relative_l2(found[feature], wanted) for feature, wanted in wanted_features(case).items()]
    record_property("relative_l2", errors)
    assert max(errors) < TOLERANCE


@each_case(lambda name: name in DEEP or name in ALWAYS_EXPORTED)
def test_folded_graph_equals_upstream(loaded: Checkpoint, case: str, record_property: Record) -> None:
    """The folded graph answers raw pixels with upstream's feature to a relative L2 error of 1e-4 for each image."""
    error = relative_l2(answers(graph_from_checkpoint(loaded), golden_images(case)), published(case))
    record_property("relative_l2", error)
    assert error < TOLERANCE


def assert_torch_cuda_answers_likewise(
    path: Path, session: onnxruntime.InferenceSession, images: np.ndarray, *, is_fused: bool = True
) -> None:
    """torch-cuda computes the file on a CPU, and leaves no ReLU behind a convolution that could take it.

    But for networks that are not fused: Xception's ReLUs are in front of its convolutions.
    """
    output = session.get_outputs()[0].name
    network = TorchNetwork(path, "images", output, torch.device("cpu"))
    batch = np.concatenate([images] * 4)[:7]
    (expected,) = session.run(None, {"images": batch})
    assert relative_l2(network(torch.from_numpy(batch)), expected) < 1e-5
    fused = fuse(read_onnx_graph(path), (output,))
    writers = {name: node for node in fused.nodes for name in node.outputs}
    readers = Counter(name for node in fused.nodes for name in node.inputs)
    for relu in fused.nodes:
        inputs = relu.inputs if relu.op == "Relu" else ()
        summands = [
            name for each in inputs if (add := writers.get(each)) and add.op == "Add" for name in add.inputs
        ]
        behind = [writers[name] for name in (*inputs, *summands) if name in writers and readers[name] == 1]
        assert not (is_fused and any(node.op == "Conv" for node in behind))


@each_case(lambda name: name not in ALWAYS_EXPORTED)
def test_exported_file_equals_upstream(
    loaded: Checkpoint, case: str, tmp_path: Path, record_property: Record
) -> None:
    """The file is valid, holds no BatchNorm, and answers as upstream at batch 1, 2 and 5, and in FP16."""
    path = tmp_path / "model.onnx"
    manifest = onnx_from_graph(graph_from_checkpoint(loaded), path)
    onnx.checker.check_model(str(path), full_check=True)
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert kinds["BatchNormalization"] == 0
    assert kinds["Conv"] > 0
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    images, wanted = golden_images(case).numpy(), published(case)
    errors = []
    for rows in ([1], [0, 1], [1, 0, 0, 1, 0]):
        (found,) = session.run(None, {"images": images[rows]})
        assert found.dtype == np.float32
        errors.append(relative_l2(found, wanted[rows]))
    record_property("relative_l2", errors)
    assert max(errors) < TOLERANCE
    if case in NOT_FOR_TORCH_CUDA:
        with pytest.raises(ArtifactError, match="torch-cuda cannot compute"):
            assert_torch_cuda_answers_likewise(path, session, images)
    else:
        assert_torch_cuda_answers_likewise(path, session, images, is_fused=case != "tr_xception")
    assert manifest.parity is not None
    assert manifest.parity.num_images == 1 + 2 + 5
    half = onnxruntime.InferenceSession(
        fp16_model(onnx.load(path)).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = half.run(None, {"images": images})
    assert relative_l2(found, wanted) < FP16_TOLERANCE


# ── the stem ReLU, strides: what a wrong guess costs ──────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def resnet18_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sb_resnet18's golden weights as strong-baseline saves them."""
    path = tmp_path_factory.mktemp("golden") / "resnet18_model_120.pth"
    torch.save(checkpoints.golden_weights("sb_resnet18"), path)
    return path


@pytest.fixture(scope="module")
def resnet18(resnet18_file: Path) -> Checkpoint:
    """The same, loaded."""
    return load_checkpoint(resnet18_file)


def test_stem_relu_trap(resnet18_file: Path) -> None:
    """Strong-baseline's ResNet has no ReLU after its stem; adding it gives other vectors, without any error."""
    images = golden_images("sb_resnet18")
    without = load_checkpoint(resnet18_file)
    assert without.architecture.stem_relu is False
    assert any("no ReLU after the stem" in text for text in without.assumed)
    assert relative_l2(features_of(without, images)[1], expected("sb_resnet18", "f_i")) < TOLERANCE
    trapped = load_checkpoint(resnet18_file, CheckpointChoices(stem_relu=True))
    assert trapped.architecture.stem_relu is True
    assert relative_l2(features_of(trapped, images)[1], expected("sb_resnet18", "f_i")) > 0.03


def load_pickled(folder: Path, case: str, depth: int, last_stride: int, *, stem_relu: bool) -> Checkpoint:
    """A case's weights in a pickled module of lost classes."""
    with checkpoints.lost_classes() as model_class:
        model = model_class(depth, last_stride, stem_relu=stem_relu).eval()
        model.load_state_dict(checkpoints.golden_weights(case))
        torch.save(model, folder / "model.pth")
    return load_checkpoint(folder / "model.pth")


def test_stem_relu_of_a_pickled_module_is_seen(tmp_path: Path) -> None:
    """A pickled module whose class had added the stem's ReLU is exported with it, against the family's habit."""
    checkpoint = load_pickled(tmp_path, "sb_resnet18", 18, 1, stem_relu=True)
    assert checkpoint.architecture.stem_relu is True
    assert not any("ReLU" in text for text in checkpoint.assumed)
    images = golden_images("sb_resnet18")
    assert relative_l2(features_of(checkpoint, images)[1], expected("sb_resnet18", "f_i")) > 0.03


def test_pickled_module_needs_no_options(tmp_path: Path) -> None:
    """Last stride 2 is read from a whole pickled module of lost classes: upstream's vector without any option."""
    checkpoint = load_pickled(tmp_path, "sb_resnet50_stride2", 50, 2, stem_relu=False)
    assert {name for name, origin in checkpoint.origins.items() if origin == "assumed"} == {
        *("size", "mean", "std", "channel_order", "resize")
    }
    images = golden_images("sb_resnet50_stride2")
    assert relative_l2(features_of(checkpoint, images)[1], expected("sb_resnet50_stride2", "f_i")) < TOLERANCE


# ── folding ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_folded_neck_is_the_formula_in_float64() -> None:
    """The folded BNNeck's scale and shift are γ/√(σ²+ε) and β − μ·scale, rounded once from float64."""
    rng = np.random.default_rng(0)
    gamma, beta, mean = (rng.standard_normal(64).astype(np.float32) for _ in range(3))
    variance = rng.uniform(1e-4, 2.0, 64).astype(np.float32)
    norm = nn.BatchNorm1d(64)
    norm.load_state_dict(
        {
            "weight": torch.from_numpy(gamma),
            "bias": torch.from_numpy(beta),
            "running_mean": torch.from_numpy(mean),
            "running_var": torch.from_numpy(variance),
            "num_batches_tracked": torch.tensor(0),
        }
    )
    folded = ScaleShift(norm)
    for index in range(64):  # the slow version, one channel at a time
        scale = float(gamma[index]) / np.sqrt(float(variance[index]) + 1e-5)
        assert float(folded.scale[index]) == np.float32(scale)
        assert float(folded.shift[index]) == np.float32(float(beta[index]) - float(mean[index]) * scale)


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (3, 128, 250)])
def test_borders_are_those_of_the_unfolded_network(resnet18: Checkpoint, color: tuple[int, int, int]) -> None:
    """On images of one color everything but the borders is constant; the graph's borders are still right."""
    images = torch.tensor(color, dtype=torch.uint8).expand(1, 256, 128, 3).contiguous()
    graph = graph_from_checkpoint(resnet18)
    assert relative_l2(answers(graph, images), features_of(resnet18, images)[1]) < TOLERANCE


def test_mean_in_the_bias_of_conv1_would_be_wrong(resnet18: Checkpoint) -> None:
    """Moving the mean into conv1's bias, the usual short cut, changes the features far beyond the tolerance."""
    images = golden_images("sb_resnet18")
    graph = graph_from_checkpoint(resnet18)
    wanted = answers(graph, images)
    first = next(module for module in graph.backbone.modules() if isinstance(module, nn.Conv2d))
    assert first.bias is not None
    with torch.no_grad():
        first.bias -= (first.weight * graph.mean_255).sum((1, 2, 3))
        graph.mean_255.zero_()
    assert relative_l2(answers(graph, images), wanted) > 0.01


def test_no_norm_is_left_and_the_network_is_untouched(resnet18: Checkpoint) -> None:
    """Folding leaves no BatchNorm in the graph and does not change the model it folds."""
    model = model_from_checkpoint(resnet18)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_batch_norms(model.backbone)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_norm_without_a_layer_before_it_becomes_a_scale_and_a_shift() -> None:
    """As DenseNet's, which follow concatenations: none is left, and the answer is the same."""
    network = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)).eval()
    statistics = {
        "running_mean": torch.randn(3),
        "running_var": torch.rand(3) + 0.5,
        "weight": torch.randn(3),
    }
    network[1].load_state_dict({**network[1].state_dict(), **statistics})
    folded = fold_batch_norms(network)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    images = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(folded(images), network(images))


def test_unfoldable_norm_is_named() -> None:
    """An IBN with no convolution before it is refused by name, not left in the graph."""
    with pytest.raises(InputError, match=r"the IBN 1 follows 0: nothing to fold it into"):
        fold_batch_norms(nn.Sequential(nn.ReLU(), IBN(4)).eval())


# ── options of the graph ──────────────────────────────────────────────────────────────────────────────────────


def test_feature_before_the_neck(resnet18: Checkpoint) -> None:
    """``feature="f_t"`` gives upstream's feature before BNNeck."""
    graph = graph_from_checkpoint(resnet18, GraphOptions(feature="f_t"))
    assert (
        relative_l2(answers(graph, golden_images("sb_resnet18")), expected("sb_resnet18", "f_t")) < TOLERANCE
    )


def test_normalize_gives_unit_rows(resnet18: Checkpoint) -> None:
    """``normalize`` divides each row by its length and changes nothing else."""
    found = answers(
        graph_from_checkpoint(resnet18, GraphOptions(normalize=True)), golden_images("sb_resnet18")
    )
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    wanted = expected("sb_resnet18", "f_i")
    assert relative_l2(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True)) < TOLERANCE


def test_flip_is_the_average_with_the_mirror_image(resnet18: Checkpoint) -> None:
    """``flip`` answers the mean of the features of the image and of its mirror, row by row."""
    images = golden_images("sb_resnet18")
    plain = graph_from_checkpoint(resnet18)
    wanted = (answers(plain, images) + answers(plain, images.flip(2))) / 2
    found = answers(graph_from_checkpoint(resnet18, GraphOptions(flip=True)), images)
    assert relative_l2(found, wanted) < TOLERANCE
    assert relative_l2(found, answers(plain, images)) > 1e-3


def test_float32_input_takes_normalized_images(resnet18: Checkpoint) -> None:
    """``input="float32"`` takes NCHW images that are already normalized, and says so in its preprocessing."""
    graph = graph_from_checkpoint(resnet18, GraphOptions(input="float32"))
    found = answers(graph, normalized(golden_images("sb_resnet18")))
    assert relative_l2(found, expected("sb_resnet18", "f_i")) < TOLERANCE
    assert (graph.preprocess.in_graph, graph.preprocess.layout) == (False, "NCHW")


@pytest.mark.parametrize(
    ("options", "batch"),
    [
        (GraphOptions(normalize=True, flip=True), "dynamic"),
        (GraphOptions(feature="f_t", input="float32"), "dynamic"),
        (GraphOptions(flip=True), 3),
    ],
    ids=["normalize-flip", "f_t-float32", "static-flip"],
)
def test_exported_options(
    resnet18: Checkpoint, options: GraphOptions, batch: int | str, tmp_path: Path
) -> None:
    """Every option survives the export: the file's input and output are as asked, and it answers as the graph."""
    graph = graph_from_checkpoint(resnet18, options)
    path = tmp_path / "model.onnx"
    manifest = onnx_from_graph(graph, path, batch=batch)  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (entry,), (out,) = session.get_inputs(), session.get_outputs()
    size = "batch" if batch == "dynamic" else batch
    assert entry.name == "images"
    assert entry.shape == ([size, 256, 128, 3] if options.input == "uint8" else [size, 3, 256, 128])
    assert entry.type == ("tensor(uint8)" if options.input == "uint8" else "tensor(float)")
    assert (out.name, out.type) == (options.feature or "f_i", "tensor(float)")
    assert out.shape == [size, 512]
    for count in (1, 4) if batch == "dynamic" else (3,):
        images = graph.example(count)
        (found,) = session.run(None, {"images": images.numpy()})
        assert relative_l2(found, answers(graph, images)) < TOLERANCE
    assert (manifest.feature, manifest.normalized, manifest.flip) == (
        options.feature or "f_i", options.normalize, options.flip,
    )  # fmt: skip
    if batch == 3:
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument):
            session.run(None, {"images": graph.example(2).numpy()})


# ── fp16 ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def fp16_file(resnet18: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An FP16 file with unit rows."""
    path = tmp_path_factory.mktemp("fp16") / "model.onnx"
    manifest = onnx_from_graph(
        graph_from_checkpoint(resnet18, GraphOptions(normalize=True)), path, precision="fp16"
    )
    assert manifest.precision == "fp16"
    assert manifest.layer_precisions == {"fp16": 20}
    return path


def test_fp16_weights_are_half_and_the_rest_is_float(fp16_file: Path) -> None:
    """Every convolution holds FLOAT16 weights; pooling, neck, L2 and output are float32; two casts join them."""
    model = onnx.shape_inference.infer_shapes(onnx.load(fp16_file))
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    shown = {
        value.name: value.type.tensor_type.elem_type
        for value in (*model.graph.value_info, *model.graph.output)
    }
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert {types[name] for node in convolutions for name in node.input[1:]} == {TensorProto.FLOAT16}
    half = {node.op_type for node in model.graph.node if shown[node.output[0]] == TensorProto.FLOAT16}
    assert half == {"Cast", "Conv", "Relu", "MaxPool", "Add"}
    sums = [node for node in model.graph.node if node.op_type.startswith("Reduce")]
    assert sums  # the pooling's mean, and the sum of squares of L2
    assert {shown[node.output[0]] for node in sums} == {TensorProto.FLOAT}
    assert [shown[value.name] for value in model.graph.output] == [TensorProto.FLOAT]
    assert sum(node.op_type == "Cast" for node in model.graph.node) == 3  # uint8 → float32 → half → float32
    assert all(np.isfinite(numpy_helper.to_array(tensor)).all() for tensor in model.graph.initializer)


def test_fp16_answers_are_close(fp16_file: Path, resnet18: Checkpoint) -> None:
    """The FP16 file's rows have unit length and lie within 5e-3 of upstream's float64 answer."""
    session = onnxruntime.InferenceSession(fp16_file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": golden_images("sb_resnet18").numpy()})
    wanted = expected("sb_resnet18", "f_i")
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    assert relative_l2(found, wanted / np.linalg.norm(wanted, axis=1, keepdims=True)) < 5e-3


@pytest.mark.parametrize("name", ["tr_osnet_ain_x0_25"])
def test_fp16_keeps_instance_norms_in_float32(name: str, tmp_path: Path) -> None:
    """Instance norms sum over whole maps: they stay float32 in an FP16 file, which stays close to upstream."""
    path = tmp_path / "osnet.pth"
    torch.save(checkpoints.golden_weights(name), path)
    onnx_path = tmp_path / "model.onnx"
    onnx_from_graph(graph_from_checkpoint(load_checkpoint(path)), onnx_path, precision="fp16")
    model = onnx.shape_inference.infer_shapes(onnx.load(onnx_path))
    shown = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    norms = [node for node in model.graph.node if node.op_type == "InstanceNormalization"]
    assert norms
    assert {shown[node.output[0]] for node in norms} == {TensorProto.FLOAT}
    session = onnxruntime.InferenceSession(onnx_path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": golden_images(name).numpy()})
    assert relative_l2(found, expected(name, "f_i")) < 2e-2


def test_network_without_a_neck_has_no_f_i(resnet18: Checkpoint) -> None:
    """Asking a network without a neck for f_i is an error that says what to ask for; left open, it gives f_t."""
    bare = replace(
        resnet18,
        architecture=replace(resnet18.architecture, neck="none"),
        state_dict={key: value for key, value in resnet18.state_dict.items() if not key.startswith("neck.")},
    )
    with pytest.raises(
        InputError, match=r"has no neck, so it has no f_i: leave --feature out, or ask for f_t"
    ):
        graph_from_checkpoint(bare, GraphOptions(feature="f_i"))
    assert graph_from_checkpoint(bare).options.feature == "f_t"
