"""The torch-cuda backend: the answers of ONNX Runtime from fused calls, operator by operator and whole networks."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from reidruntime import (
    ArtifactError,
    InputError,
    NotInstalledError,
    Session,
    SessionOptions,
    backends,
    open_session,
)
from reidruntime.artifact.manifest import TensorSpec
from reidruntime.artifact.onnx_graph import read_onnx_graph
from reidruntime.backends import Network, lanes, open_backend, torch_cuda, torch_network
from reidruntime.backends.onnx_fusion import fuse
from reidruntime.backends.torch_cuda import TorchCudaBackend
from reidruntime.backends.torch_network import TorchNetwork
from reidruntime.tensorrt_library import Gpu

from tests.conftest import Exported
from tests.standins.checkpoints import relative_l2
from tests.standins.host_memory import HostMemory, tensor_at
from tests.standins.runtime_models import network_of, small_manifest, write_artifact

CPU = torch.device("cpu")
SHAPE = (2, 6, 5, 4)


def write_network(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, Any], **options: Any) -> Path:
    """A network from ``x``, float32 of SHAPE, to ``y``."""
    image = helper.make_tensor_value_info("x", options.get("input", TensorProto.FLOAT), ["batch", *SHAPE[1:]])
    output = helper.make_tensor_value_info("y", options.get("output", TensorProto.FLOAT), None)
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "network", [image], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", options.get("opset", 20))])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def answers(path: Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, TorchNetwork]:
    """What torch and ONNX Runtime compute, and torch's network."""
    network = TorchNetwork(path, "x", "y", CPU)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return network(torch.from_numpy(x)).numpy(), session.run(["y"], {"x": x})[0], network


def node(op: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node that reads ``x`` and constants and writes ``y``."""
    return helper.make_node(op, ["x", *inputs], ["y"], **attributes)


ONE_NODE: list[tuple[onnx.NodeProto, dict[str, Any]]] = [
    *((node(op), {}) for op in ("Relu", "Sigmoid", "Tanh", "Erf", "HardSwish", "HardSigmoid", "GlobalAveragePool")),
    *((node(op, "c"), {"c": np.float32([[[3]], [[2]]] * 3)}) for op in ("Add", "Sub", "Mul", "Div")),
    (node("Cast", to=TensorProto.FLOAT16), {"half": np.float32(0)}),
    (node("Clip", "low", "high"), {"low": np.float32(-0.5), "high": np.float32(0.25)}),
    (node("Clip", "", "high"), {"high": np.float32(0.25)}),
    (node("Clip", "low"), {"low": np.float32(-0.5)}),
    (node("Concat", "x", axis=1), {}),
    (node("Flatten"), {}),
    (node("Gelu"), {}),
    (node("Gelu", approximate="tanh"), {}),
    (node("HardSigmoid", alpha=1 / 6), {}),
    (node("InstanceNormalization", "s", "b"), {"s": np.float32(range(6)), "b": np.float32(range(6))}),
    (node("LayerNormalization", "s", "b", epsilon=1e-3), {"s": np.float32(range(4)), "b": np.float32(range(4))}),
    (node("LeakyRelu", alpha=0.2), {}),
    (node("MatMul", "w"), {"w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)}),
    (node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), {}),
    (node("MaxPool", kernel_shape=[3, 2], strides=[2, 2], ceil_mode=1), {}),
    (node("AveragePool", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1]), {}),
    (node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), {}),
    (node("Pad", "p"), {"p": np.int64([0, 1, 0, 2, 0, 0, 3, 0])}),
    (node("Pad", "p", "v"), {"p": np.int64([0, 0, 1, 0, 0, 0, 0, 0]), "v": np.float32(2.5)}),
    (node("ReduceMax", "a", keepdims=0), {"a": np.int64([2, 3])}),
    (node("ReduceMean", "a", keepdims=0), {"a": np.int64([2, 3])}),
    (node("ReduceMean", "a"), {"a": np.int64([-1])}),
    (node("ReduceSum", "a", keepdims=0), {"a": np.int64([1])}),
    (node("Reshape", "s"), {"s": np.int64([0, 2, 3, -1])}),
    (node("Reshape", "s", allowzero=1), {"s": np.int64([-1, 120])}),
    (node("Slice", "s", "e", "a"), {"s": np.int64([1]), "e": np.int64([-1]), "a": np.int64([1])}),
    (
        node("Slice", "s", "e", "a", "t"),
        {"s": np.int64([0]), "e": np.int64([2**62]), "a": np.int64([2]), "t": np.int64([2])},
    ),
    (
        node("Slice", "s", "e", "a", "t"),
        {"s": np.int64([-1]), "e": np.int64([-(2**62)]), "a": np.int64([3]), "t": np.int64([-1])},
    ),
    *(
        (
            node("Slice", "s", "e", "a", "t"),
            {"s": np.int64([-1]), "e": np.int64([end]), "a": np.int64([2]), "t": np.int64([-1])},
        )
        for end in (-7, -6, -3, 0, 1)
    ),
    (node("Softmax", axis=1), {}),
    (node("Transpose", perm=[0, 2, 1, 3]), {}),
    (node("Unsqueeze", "a"), {"a": np.int64([1])}),
    (node("Conv", "w", "b"), {"w": np.ones((4, 6, 3, 3), np.float32), "b": np.float32(range(4))}),
    (
        node("Conv", "w", group=3, strides=[2, 1], pads=[1, 2, 1, 2], dilations=[1, 2]),
        {"w": np.linspace(-1, 1, 6 * 2 * 9, dtype=np.float32).reshape(6, 2, 3, 3)},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "constants"), ONE_NODE, ids=lambda value: getattr(value, "op_type", ""))
def test_each_operator_answers_as_onnx_runtime(
    operator: onnx.NodeProto, constants: dict[str, Any], tmp_path: Path
) -> None:
    """Every operator, in the forms that networks have it in, gives ONNX Runtime's numbers, shape and type."""
    kind = TensorProto.FLOAT16 if "half" in constants else TensorProto.FLOAT
    path = write_network(tmp_path / "a.onnx", [operator], constants, output=kind)
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    found, expected, _ = answers(path, x)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


MAKE = helper.make_node


def test_an_answer_that_another_node_reads_is_kept(tmp_path: Path) -> None:
    """Features that a classifier reads as well are not freed before they are answered."""
    nodes = [node("Sigmoid"), MAKE("Tanh", ["y"], ["z"])]
    path = write_network(tmp_path / "a.onnx", nodes, {})
    found, expected, _ = answers(path, np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


SPLITS: list[tuple[onnx.NodeProto, dict[str, Any]]] = [
    (MAKE("Split", ["x", "sizes"], ["a", "b", "c"], axis=1), {"sizes": np.int64([1, 2, 3])}),
    (MAKE("Split", ["x"], ["a", "b", "c"], axis=-3, num_outputs=3), {}),
    (MAKE("Split", ["x"], ["a", "b", "c"], axis=2, num_outputs=3), {}),
]


@pytest.mark.parametrize(("split", "constants"), SPLITS)
def test_a_node_may_have_several_outputs(
    split: onnx.NodeProto, constants: dict[str, Any], tmp_path: Path
) -> None:
    """Parts of a tensor, of given sizes or of equal ones (the last may be smaller), each under its own name."""
    (axis,) = (each.i for each in split.attribute if each.name == "axis")
    path = write_network(
        tmp_path / "a.onnx", [split, MAKE("Concat", ["c", "a"], ["y"], axis=axis)], constants
    )
    found, expected, _ = answers(path, np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32))
    np.testing.assert_array_equal(found, expected)


REFUSED: list[tuple[list[onnx.NodeProto], dict[str, Any], str]] = [
    (
        [node("QuantizeLinear", "s", "z")],
        {"s": np.float32(1), "z": np.uint8(0)},
        r"a\.onnx: torch-cuda cannot compute QuantizeLinear \(y\): this operator is not supported. Use backend onnx",
    ),
    ([node("Unsqueeze", "axes")], {"axes": np.array([2, 3])}, "it adds 2 dimensions, expected one"),
    ([node("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 1, 1])], {}, "expected the same at both ends"),
    (
        [node("MaxPool", kernel_shape=[2, 2], auto_pad="SAME_UPPER")],
        {},
        "auto_pad is SAME_UPPER, expected NOTSET",
    ),
    (
        [node("MaxPool", kernel_shape=[2, 2], dilations=[2, 2])],
        {},
        r"dilations is \(2, 2\), expected \(1, 1\)",
    ),
    ([MAKE("Shape", ["x"], ["s"]), node("Reshape", "s")], {}, r"Shape \(s\): this operator is not supported"),
    ([node("Reshape", "x")], {}, "input x is computed, expected a constant"),
    ([node("Conv", "x")], {}, "its weight x is computed, expected a constant"),
    (
        [node("Conv", "w", pads=[0, 0, 1, 1])],
        {"w": np.ones((1, 6, 2, 2), np.float32)},
        r"pads are \(0, 0, 1, 1\), expected the same at both ends",
    ),
    (
        [node("Slice", "s", "e", "a", "t")],
        {"s": np.int64([3]), "e": np.int64([0]), "a": np.int64([3]), "t": np.int64([-1])},
        "it steps by -1 from 3, expected forward, or backward from the last one",
    ),
    ([node("Cast", to=TensorProto.STRING)], {}, "it casts to the data type 8"),
    (
        [MAKE("Split", ["x", "sizes"], ["y", "z"], axis=1)],
        {"sizes": np.int64([1, 2, 3])},
        "it has 2 outputs and sizes of 3",
    ),
    (
        [MAKE("MaxPool", ["x"], ["y", "z"], kernel_shape=[2, 2])],
        {},
        r"MaxPool \(y\): it has 2 outputs, expected one",
    ),
]


@pytest.mark.parametrize(("nodes", "constants", "words"), REFUSED, ids=lambda value: "")
def test_what_is_not_known_is_refused_by_name(
    nodes: list[onnx.NodeProto], constants: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """Another operator, or a form of one that would be computed otherwise, is an error when the file is opened."""
    path = write_network(tmp_path / "a.onnx", nodes, constants)
    with pytest.raises(ArtifactError, match=words):
        TorchNetwork(path, "x", "y", CPU)


def test_an_old_opset_is_refused(tmp_path: Path) -> None:
    """Softmax and Clip of opset 11 mean something else than what is computed here."""
    path = write_network(tmp_path / "a.onnx", [node("Softmax")], {}, opset=11)
    with pytest.raises(
        ArtifactError, match=r"opset 13 and later, the file is of opset 11: .* Export it again"
    ):
        TorchNetwork(path, "x", "y", CPU)


def test_int8_files_go_to_the_cpu_where_only_torch_has_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Device auto computes INT8 with ONNX Runtime or OpenVINO; asked for CUDA, the message says what to install."""
    monkeypatch.setattr(backends, "first_gpu", lambda: Gpu("NVIDIA H200", "9.0", "580.0"))
    monkeypatch.setattr(backends, "_torch_is_for_cuda", lambda: True)
    network = replace(network_of(write_artifact(tmp_path / "a.onnx")), precision="int8")
    name, _ = open_backend(network, "auto", "auto", 1)
    assert name in ("onnxruntime", "openvino")
    with pytest.raises(NotInstalledError, match=r"cannot use CUDA: pip install \"reidexport\[gpu\]\""):
        open_backend(network, "auto", "cuda", 1)


def test_operators_are_refused_through_the_session(tmp_path: Path) -> None:
    """open_session says so too, and takes nothing else in its place."""
    path = write_artifact(tmp_path / "a.onnx")
    path.write_bytes(path.read_bytes().replace(b"GlobalAveragePool", b"GlobalAveragePooX"))
    with pytest.raises(ArtifactError, match=r"a\.onnx: torch-cuda cannot compute GlobalAveragePooX"):
        open_session(path, SessionOptions(backend="torch-cuda", device="cpu"))


# ── fused calls ───────────────────────────────────────────────────────────────────────────────────────────────


def residual_block(*, half: bool) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """A block as ResNets have it, with a convolution in its short cut."""
    rng, dtype = np.random.default_rng(0), np.float16 if half else np.float32
    weights = {f"w{index}": rng.normal(0, 0.3, (6, 6, 1, 1)).astype(dtype) for index in range(3)}
    weights |= {f"b{index}": rng.normal(0, 1, 6).astype(dtype) for index in range(3)}
    return [
        MAKE("Cast", ["x"], ["h"], to=TensorProto.FLOAT16 if half else TensorProto.FLOAT),
        MAKE("Conv", ["h", "w0", "b0"], ["c0"]),
        MAKE("Relu", ["c0"], ["r0"]),
        MAKE("Conv", ["r0", "w1", "b1"], ["c1"]),
        MAKE("Conv", ["h", "w2", "b2"], ["c2"]),
        MAKE("Add", ["c1", "c2"], ["sum"]),
        MAKE("Relu", ["sum"], ["r1"]),
        MAKE("Cast", ["r1"], ["y"], to=TensorProto.FLOAT),
    ], weights


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-6), (True, 2e-3)])
def test_a_residual_block_is_three_calls(half: bool, tolerance: float, tmp_path: Path) -> None:
    """ReLU and addition go into the convolutions in front of them; the short cut's bias is added there too."""
    nodes, weights = residual_block(half=half)
    path = write_network(tmp_path / "a.onnx", nodes, weights)
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    found, expected, network = answers(path, x)
    assert relative_l2(found.reshape(2, -1), expected.reshape(2, -1)) < tolerance
    assert network.operators == {"Cast": 2, "ConvRelu": 1, "Conv": 1, "ConvAddRelu": 1}
    fused = fuse(read_onnx_graph(path), ("y",))
    (last,) = (each for each in fused.nodes if each.op == "ConvAddRelu")
    np.testing.assert_allclose(
        fused.constants[last.inputs[2]], np.add(weights["b1"], weights["b2"], dtype=np.float32), rtol=1e-3
    )


def test_a_tensor_that_others_read_is_not_fused_away(tmp_path: Path) -> None:
    """A convolution whose sum or output is read elsewhere stays, and so does one that is the output."""
    weights = {"w": np.ones((6, 6, 1, 1), np.float32)}
    conv, relu = MAKE("Conv", ["x", "w"], ["c"]), MAKE("Relu", ["c"], ["r"])
    path = write_network(tmp_path / "a.onnx", [conv, relu, MAKE("Add", ["c", "r"], ["y"])], weights)
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    found, expected, network = answers(path, x)
    assert network.operators == {"Conv": 1, "Relu": 1, "Add": 1}
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("half", [False, True])
def test_a_bias_behind_the_pooling_changes_no_bit(half: bool, tmp_path: Path) -> None:
    """A convolution without ReLU before a max pooling, as in the strong baseline's stem: bit-equal answers."""
    dtype = torch.float16 if half else torch.float32
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.integers(-9, 10, (4, 6, 1, 1)).astype("f2" if half else "f4"),
        "b": rng.normal(0, 3, 4).astype("f2" if half else "f4"),
    }
    nodes = [
        MAKE("Cast", ["x"], ["h"], to=TensorProto.FLOAT16 if half else TensorProto.FLOAT),
        MAKE("Conv", ["h", "w", "b"], ["c"]),
        MAKE("MaxPool", ["c"], ["p"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        MAKE("Cast", ["p"], ["y"], to=TensorProto.FLOAT),
    ]
    path = write_network(tmp_path / "a.onnx", nodes, weights)
    x = rng.integers(-9, 10, SHAPE).astype(np.float32)  # whole numbers: no product is rounded
    found, _, network = answers(path, x)
    assert [op for op in network.operators if op != "Cast"] == ["Conv", "MaxPool", "Add"]
    maps = torch.nn.functional.conv2d(
        torch.from_numpy(x).to(dtype).float(), torch.from_numpy(weights["w"]).float()
    ).to(dtype)
    maps = maps + torch.from_numpy(weights["b"]).reshape(-1, 1, 1)
    assert np.array_equal(found, torch.nn.functional.max_pool2d(maps, 3, 2, 1).float().numpy())


def test_a_clip_from_zero_keeps_its_upper_limit(tmp_path: Path) -> None:
    """ReLU6 is a ReLU in the convolution's call, and a limit."""
    weights = {"w": np.ones((6, 6, 1, 1), np.float32), "low": np.float32(0), "high": np.float32(1.5)}
    nodes = [MAKE("Conv", ["x", "w"], ["c"]), MAKE("Clip", ["c", "low", "high"], ["y"])]
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    found, expected, network = answers(write_network(tmp_path / "a.onnx", nodes, weights), x)
    assert network.operators == {"ConvRelu": 1, "Clip": 1}
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# ── whole networks ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 2e-3)])
def test_a_network_answers_as_onnx_runtime(exported: Exported, precision: str, tolerance: float) -> None:
    """ResNet-18 at batch 1, 7 and 32; every ReLU and every addition of a block is in a convolution's call."""
    path = exported.onnx if precision == "fp32" else exported.fp16
    images = np.random.default_rng(0).integers(0, 256, (32, 64, 32, 3), dtype=np.uint8)
    with (
        open_session(path, SessionOptions(backend="torch-cuda", device="cpu")) as session,
        open_session(path, SessionOptions(backend="onnxruntime", device="cpu")) as reference,
    ):
        assert session.backend == "torch-cuda"
        assert session.description.startswith(f"torch {torch.__version__}, CPU, ")
        for size in (1, 7, 32):
            found, expected = session.run(images[:size]), reference.run(images[:size])
            assert found.dtype == np.float32
            assert relative_l2(found, expected) < tolerance
        tensor = session.run_tensor(torch.from_numpy(images[:7]))
        assert np.array_equal(tensor.numpy(), session.run(images[:7]))
    network = TorchNetwork(path, "images", "f_i", CPU)
    assert network.operators["ConvRelu"] + network.operators["ConvAddRelu"] == 17
    assert "Relu" not in network.operators
    assert network.operators["Add"] == 1  # BNNeck's shift
    assert "Cast" not in network.operators  # bytes are read, and the mean taken, without a map of their own


def test_it_needs_a_gpu_unless_the_cpu_is_asked_for(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU it is not there; the CPU is taken only by name."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NotInstalledError, match=r"finds no NVIDIA GPU\. Check with nvidia-smi"):
        open_session(exported.onnx, SessionOptions(backend="torch-cuda"))


def test_a_tensor_must_be_where_the_network_is(exported: Exported) -> None:
    """A tensor of another type or device is refused with both named, and so is an array."""
    with open_session(exported.onnx, SessionOptions(backend="torch-cuda", device="cpu")) as session:
        with pytest.raises(InputError, match=r"Expected a uint8 tensor .* on cpu, got float32"):
            session.run_tensor(torch.zeros((1, 64, 32, 3)))
        with pytest.raises(
            InputError, match=r"Expected a uint8 tensor .* on cpu, got an array\. Pass .* run\(\)\."
        ):
            session.run_tensor(np.zeros((1, 64, 32, 3), np.uint8))


# ── lanes and graphs, on memory that is the host's ────────────────────────────────────────────────────────────


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> Callable[[Network], TorchCudaBackend]:
    """A backend in lanes whose device is the CPU."""
    monkeypatch.setattr(lanes, "open_device_memory", lambda name: HostMemory())
    monkeypatch.setattr(torch_cuda, "tensor_at", tensor_at)
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle, device: handle)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch_cuda, "_BATCH_SIZES", (1, 2, 4, 8))
    return lambda network: TorchCudaBackend(network, device="cpu", threads=1, in_lanes=True)


def test_batches_are_padded_to_a_few_sizes(on_host: Any, tmp_path: Path) -> None:
    """Any batch size, larger than the lanes too, answers as the plain network, by graphs of a few sizes."""
    network = network_of(write_artifact(tmp_path / "a.onnx"))
    plain, backend = TorchCudaBackend(network, device="cpu", threads=1), on_host(network)
    images = np.random.default_rng(0).integers(0, 256, (21, *network.input.shape[1:]), dtype=np.uint8)  # type: ignore[arg-type]
    for size in (1, 3, 5, 8, 21, 3, 7):
        assert relative_l2(backend.run(images[:size]), plain.run(images[:size])) < 1e-6
    assert backend.graph_sizes == (1, 4, 8)
    assert not torch.backends.cudnn.benchmark
    array = backend.host_array(5)
    array[:] = images[:5]
    assert np.array_equal(backend.run(array), backend.run(images[:5]))
    assert backend.host_array(9).shape == (9, *images.shape[1:])
    backend.close()


def test_a_session_reads_images_into_page_locked_memory(on_host: Any, tmp_path: Path) -> None:
    """What is read is copied to the GPU from where it was read to, and a bad image leaves the others where they are."""
    path = write_artifact(tmp_path / "a.onnx")
    backend = on_host(network_of(path))
    images: list[Any] = list(np.random.default_rng(0).integers(0, 256, (7, 40, 20, 3), dtype=np.uint8))
    images[2] = tmp_path / "missing.png"
    rows = {}
    with Session(small_manifest(), "torch-cuda", backend, 2) as session:
        sources: list[int] = []
        for lane in backend._lanes._lanes:
            lane.memory.copied_in = sources
        for indices, features in session.embed_batches(images, batch_size=4, on_bad_image=lambda *_: None):
            rows |= dict(zip(indices, features, strict=True))
        assert len(sources) == 2
        assert set(sources) <= set(backend._lanes._host_buffers)
    del images[2]
    with open_session(path, SessionOptions(backend="onnxruntime", device="cpu")) as reference:
        assert relative_l2(np.stack([rows[index] for index in sorted(rows)]), reference.embed(images)) < 1e-6


def test_a_static_batch_runs_as_it_is(on_host: Any, tmp_path: Path) -> None:
    """A file that takes batches of three gets batches of three, not of four."""
    backend = on_host(network_of(write_artifact(tmp_path / "a.onnx", 3), 3))
    images = np.zeros((3, 32, 16, 3), np.uint8)
    assert backend.run(images).shape == (3, 8)
    assert backend.graph_sizes == (3,)


def right(x: Any, weight: Any, bias: Any, *form: Any) -> torch.Tensor:
    """What cuDNN's fused call without a summand must answer."""
    return torch.relu(torch.nn.functional.conv2d(x, weight, bias, *form))


def unwritten(x: Any, weight: Any, bias: Any, *form: Any) -> torch.Tensor:
    """What it answers if it multiplies memory that nobody has written."""
    return right(x, weight, bias, *form) * torch.nan


def missing(*arguments: Any) -> torch.Tensor:
    """What it does without a kernel."""
    raise RuntimeError("GET was unable to find an engine to execute this computation")


def added(x: Any, weight: Any, z: Any, alpha: float, bias: Any, *form: Any) -> torch.Tensor:
    """The fused call with a summand."""
    return torch.relu(torch.nn.functional.conv2d(x, weight, bias, *form) + alpha * z)


def added_unwritten(*arguments: Any) -> torch.Tensor:
    """The same, wrong."""
    return added(*arguments) * torch.nan


NO_ENGINE = "cuDNN: GET was unable to find an engine"


@pytest.mark.parametrize(
    ("call", "add_call", "seconds", "taken", "summary"),
    [
        (right, added, [2.0, 1.0], "_in_one_call", "1 of 1 convolutions in one call with their ReLU"),
        (unwritten, added, [2.0, 1.0], "_with_zeros", "1 of 1 convolutions"),
        (
            unwritten,
            missing,
            [2.0],
            "_in_steps",
            f"0 of 1 convolutions in one call with their ReLU ({NO_ENGINE}",
        ),
        (missing, added_unwritten, [2.0], "_in_steps", "0 of 1 convolutions"),
        (
            right,
            added,
            [1.0, 2.0, 3.0],
            "_in_steps",
            "0 of 1 convolutions in one call with their ReLU (cuDNN: it",
        ),
    ],
)
def test_one_call_is_taken_only_where_it_is_right_and_not_slower(
    call: Any,
    add_call: Any,
    seconds: list[float],
    taken: str,
    summary: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Where it reads unwritten memory, zeros are added instead; without a kernel, or slower, steps are computed."""
    weights = {"w": np.ones((6, 6, 3, 2), np.float32), "b": np.ones(6, np.float32)}
    form = {"strides": [2, 1], "pads": [1, 1, 1, 1], "dilations": [1, 2]}
    nodes = [MAKE("Conv", ["x", "w", "b"], ["c"], **form), MAKE("Relu", ["c"], ["y"])]
    path = write_network(tmp_path / "a.onnx", nodes, weights)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32))
    network = TorchNetwork(path, "x", "y", CPU)
    (convolution,) = network.convolutions
    convolution._may_be_one_call = True
    measured = iter(seconds)
    monkeypatch.setattr(torch_network, "device_seconds", lambda work: next(measured))
    monkeypatch.setattr(torch, "cudnn_convolution_relu", call)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", add_call)
    weight, bias = (torch.from_numpy(weights[name]) for name in "wb")
    for _ in range(2):
        torch.testing.assert_close(network(x), right(x, weight, bias, (2, 1), (1, 1), (1, 2), 1))
    assert [call.__name__ for call in convolution._calls.values()] == [taken]
    assert convolution.runs_in_one_call == (taken != "_in_steps")
    assert network.fusion_summary().startswith(summary)
    assert not list(measured)


def test_the_input_may_be_float32(tmp_path: Path) -> None:
    """A network that takes normalized planes runs as it is."""
    weights = {"w": np.ones((2, 6, 1, 1), np.float32)}
    path = write_network(tmp_path / "a.onnx", [MAKE("Conv", ["x", "w"], ["y"])], weights)
    spec = TensorSpec(name="x", dtype="float32", shape=(None, *SHAPE[1:]))
    output = TensorSpec(name="y", dtype="float32", shape=(None, 2, 5, 4))
    backend = TorchCudaBackend(Network(path, spec, output, "fp32"), device="cpu", threads=1)
    assert backend.run(np.ones(SHAPE, np.float32)).shape == (2, 2, 5, 4)
