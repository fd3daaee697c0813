"""The limit of a GPU's speed: layers, their operations and bytes, and the rates that are measured."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness import gpu_limit
from benchmarks.harness.gpu_limit import Layer, Rates, layers_of, limit_images_per_s, measured_rates


class Network:
    """An ONNX graph that is written down node by node, in one floating-point type."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """Add a node, and return the name of its output."""
        name = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=f"node_{name}", **attributes))
        return name

    def conv(
        self, x: str, channels: tuple[int, int], size: int, stride: int = 1, *, relu: bool = True
    ) -> str:
        """A convolution with a bias, and its ReLU."""
        names = f"w{len(self.nodes)}", f"b{len(self.nodes)}"
        for name, shape in zip(names, ((channels[1], channels[0], size, size), channels[1:]), strict=True):
            self.weights.append(numpy_helper.from_array(np.zeros(shape, self.dtype), name))
        pad = [size // 2] * 4
        out = self.node("Conv", x, *names, kernel_shape=[size, size], strides=[stride, stride], pads=pad)
        return self.node("Relu", out) if relu else out

    def save(self, path: Path, shape: list[int | str], output: str) -> Path:
        """Write it, with input "x" and one output."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_tensor_value_info(output, kind, None)],
            self.weights,
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
        return path


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> list[Layer]:
    """A ResNet-50 in float16, last stride 1, for images of 256 x 128, up to its pooled features."""
    net = Network(np.float16)
    x = net.node("MaxPool", net.conv("x", (3, 64), 7, 2), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for width, blocks, first_stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 1)):
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            y = net.conv(net.conv(x, (channels, width), 1), (width, width), 3, stride)
            y = net.conv(y, (width, 4 * width), 1, relu=False)
            z = net.conv(x, (channels, 4 * width), 1, stride, relu=False) if block == 0 else x
            x, channels = net.node("Relu", net.node("Add", y, z)), 4 * width
    path = tmp_path_factory.mktemp("limit") / "resnet50.onnx"
    return layers_of(net.save(path, ["N", 3, 256, 128], net.node("GlobalAveragePool", x)))


def test_a_resnet50_needs_what_is_known_of_it(resnet50: list[Layer]) -> None:
    """8.107 GFLOP and some 41.5 MB an image, in 53 convolutions and two poolings."""
    assert len(resnet50) == 55
    assert sum(layer.operations for layer in resnet50) == pytest.approx(8.107e9, rel=1e-3)
    assert sum(layer.image_bytes for layer in resnet50) == pytest.approx(41.5e6, rel=0.02)
    assert sum(layer.weight_bytes for layer in resnet50) == pytest.approx(2 * 23.5e6, rel=0.01)


@pytest.mark.parametrize(
    ("rates", "scale", "expected"),
    [
        (Rates(800, 3000), 1, 56_600),
        (Rates(790, 4300), 1, 68_400),
        (Rates(1600, 3000), 2, 110_700),
        (Rates(1580, 4300), 2, 136_700),
    ],
)
def test_limits_that_were_worked_out_by_hand(
    resnet50: list[Layer], rates: Rates, scale: int, expected: float
) -> None:
    """H100 and H200, float16 and 8-bit floats of half the bytes: within four percent."""
    layers = [layer._replace(image_bytes=layer.image_bytes // scale) for layer in resnet50]
    assert limit_images_per_s(layers, rates, 10**9) == pytest.approx(expected, rel=0.04)


def test_each_layer_takes_the_longer_of_the_two() -> None:
    """One bound by arithmetic, one by bytes, weights shared by a batch."""
    layers = [Layer("a", 6_000_000, 1000, 0), Layer("b", 1_000_000, 2000, 8000)]
    seconds = 6e6 / 1e12 + (2000 + 8000 / 4) / 1e9
    assert limit_images_per_s(layers, Rates(1, 1), 4) == pytest.approx(1 / seconds)


def test_layers_are_what_one_kernel_can_do(tmp_path: Path) -> None:
    """A convolution with ReLU; two that are added, the later doing it; a tensor that two read is written once."""
    net = Network(np.float32)
    x = net.conv("x", (3, 4), 3)
    left, right = net.conv(x, (4, 4), 1, relu=False), net.conv(x, (4, 4), 1, relu=False)
    out = net.node("GlobalAveragePool", net.node("Relu", net.node("Add", left, right)))
    layers = layers_of(net.save(tmp_path / "a.onnx", ["N", 3, 8, 8], out))
    pixels, maps, row = 4 * 3 * 64, 4 * 4 * 64, 4 * 4
    assert [layer.image_bytes for layer in layers] == [pixels + maps, 2 * maps, 3 * maps, maps + row]
    assert [layer.weight_bytes for layer in layers] == [4 * (4 * 27 + 4), 4 * 20, 4 * 20, 0]
    assert [layer.operations for layer in layers] == [2 * 64 * 4 * 27, 2 * 64 * 16, 2 * 64 * 16, 0]


def test_a_cast_costs_the_narrower_tensor(tmp_path: Path) -> None:
    """What is cast behind a convolution and read by a pooling need not pass through memory in the wider type."""
    net = Network(np.float16)
    cast = net.node("Cast", net.conv("x", (3, 4), 1), to=TensorProto.FLOAT)
    back = net.node("Cast", net.node("GlobalAveragePool", cast), to=TensorProto.FLOAT16)
    layers = layers_of(net.save(tmp_path / "a.onnx", ["N", 3, 8, 8], back))
    assert [layer.image_bytes for layer in layers] == [2 * 64 * (3 + 4), 2 * (64 * 4 + 4)]


def test_rates_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products in the precision of the network, and copies within the device."""
    measured_rates.cache_clear()
    seen: list[object] = []
    monkeypatch.setattr(
        gpu_limit, "matrix_product_tflop_per_s", lambda *arguments: seen.append(arguments) or 2.0
    )
    monkeypatch.setattr(gpu_limit, "copy_gb_per_s", lambda *arguments, **named: seen.append(arguments) or 3.0)
    assert measured_rates("fp16", "cpu", 64, 1) == measured_rates("fp16", "cpu", 64, 1) == Rates(2.0, 3.0)
    assert seen == [("fp16", 64, "cpu"), ("cpu",)]
    measured_rates.cache_clear()
