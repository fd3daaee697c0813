"""Small ONNX networks and their manifests, for the tests of everything that opens an artifact."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from reidruntime.artifact.manifest import (
    METADATA_KEY,
    Architecture,
    BatchProfile,
    Manifest,
    Preprocess,
    Producer,
    Quantization,
    Source,
    TensorSpec,
)
from reidruntime.backends import Network

HEIGHT, WIDTH, DIM = 32, 16, 8


def tensorrt_quantization(float_layers: tuple[str, ...] = ()) -> Quantization:
    """How an INT8 file for TensorRT was made, with some layers left in float32."""
    return Quantization(
        target="tensorrt",
        weight_bits=8,
        range_method="min-max",
        num_calibrated_images=1,
        num_held_out_images=1,
        mean_relative_l2=0.0,
        sensitivity={},
        float_layers=float_layers,
    )


def small_manifest(batch: int | None = None, **changes: object) -> Manifest:
    """The manifest of :func:`write_artifact`'s network, with some fields changed."""
    manifest = Manifest(
        producer=Producer(name="tests", version="0"),
        source=Source(name="none.pth", sha256="0" * 64),
        architecture=Architecture(
            backbone="tiny", family="tests", stem_relu=True, pooling="avg", neck="none", feature_dim=DIM
        ),
        input=TensorSpec(name="images", dtype="uint8", shape=(batch, HEIGHT, WIDTH, 3)),
        output=TensorSpec(name="f_i", dtype="float32", shape=(batch, DIM)),
        preprocess=Preprocess(height_px=HEIGHT, width_px=WIDTH, mean=(0, 0, 0), std=(1, 1, 1), in_graph=True),
        feature="f_i",
        normalized=False,
        flip=False,
        metric="cosine",
        precision="fp32",
        layer_precisions={"fp32": 1},
        batch_profile=BatchProfile(minimum=batch, maximum=batch) if batch else BatchProfile(),
    )
    return manifest.model_copy(update=changes)


def network_of(path: Path, batch: int | None = None) -> Network:
    """What a backend loads of :func:`write_artifact`'s file."""
    manifest = small_manifest(batch)
    return Network(path, manifest.input, manifest.output, "fp32")


def write_artifact(path: Path, batch: int | None = None, manifest: Manifest | None = None) -> Path:
    """A uint8 NHWC network with its manifest inside."""
    cast = helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT)
    transpose = helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2])
    image = helper.make_tensor_value_info(
        "images", TensorProto.UINT8, ["batch" if batch is None else batch, HEIGHT, WIDTH, 3]
    )
    model = _model([cast, transpose], image, batch, [("f_i", [batch or "batch", DIM])])
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, (manifest or small_manifest(batch)).to_json()
    onnx.save(model, path)
    return path


def write_foreign(
    path: Path, batch: int | None = None, outputs: list[tuple[str, list[int | str] | None]] | None = None
) -> Path:
    """A float32 NCHW network without a manifest, as other exporters write it."""
    image = helper.make_tensor_value_info(
        "planes", TensorProto.FLOAT, ["batch" if batch is None else batch, 3, HEIGHT, WIDTH]
    )
    onnx.save(_model([], image, batch, outputs or [("f_i", [batch or "batch", DIM])]), path)
    return path


def write_export(
    path: Path,
    image: str,
    output: str,
    size: tuple[int | str, int | str],
    *,
    metadata: dict[str, str] | None = None,
    start: tuple[tuple[str, tuple[float, ...]], ...] = (),
    with_softmax: bool = False,
    dim: int | str = DIM,
) -> Path:
    """A float32 NCHW network of the form that another project's exporter gives its own."""
    nodes, constants, name = [], [], image
    for place, (op, numbers) in enumerate(start):
        array = np.array(numbers, np.float32)
        shaped = array.reshape(1, -1, 1, 1) if len(numbers) > 1 else array[0]
        constants.append(numpy_helper.from_array(np.asarray(shaped), f"constant{place}"))
        nodes.append(helper.make_node(op, [name, f"constant{place}"], [f"step{place}"]))
        name = f"step{place}"
    nodes.append(helper.make_node("Identity", [name], ["planes"]))
    info = helper.make_tensor_value_info(image, TensorProto.FLOAT, ["batch", 3, *size])
    model = _model(nodes, info, None, [(output, ["batch", dim])])
    model.graph.initializer.extend(constants)
    last = model.graph.node[-1]
    last.output[0] = output
    if with_softmax:
        last.output[0] = "flat"
        model.graph.node.append(helper.make_node("Softmax", ["flat"], [output]))
    for key, value in (metadata or {}).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


def write_overflowing(path: Path) -> Path:
    """The network of :func:`write_artifact`, but it answers NaN to images of more than 200 on average."""
    model = onnx.load(write_artifact(path))
    graph = model.graph
    graph.node[-1].output[0] = "flat"
    constants = {"limit": np.float32(200), "zero": np.float32(0), "axes": np.array([1, 2, 3])}
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    graph.node.extend(
        [
            helper.make_node("ReduceMean", ["planes", "axes"], ["brightness"]),
            helper.make_node("Sub", ["limit", "brightness"], ["room"]),
            helper.make_node("Log", ["room"], ["logarithm"]),
            helper.make_node("Mul", ["logarithm", "zero"], ["nothing"]),
            helper.make_node("Flatten", ["nothing"], ["column"]),
            helper.make_node("Add", ["flat", "column"], ["f_i"]),
        ]
    )
    onnx.save(model, path)
    return path


def write_normalized(path: Path) -> tuple[Path, Manifest]:
    """A float32 NCHW network with a manifest: what feeds it normalizes."""
    preprocess = small_manifest().preprocess.model_copy(
        update={"in_graph": False, "layout": "NCHW", "mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3)}
    )
    spec = TensorSpec(name="planes", dtype="float32", shape=(None, 3, HEIGHT, WIDTH))
    manifest = small_manifest(preprocess=preprocess, input=spec)
    write_foreign(path)
    model = onnx.load(path)
    model.metadata_props.add(key=METADATA_KEY, value=manifest.to_json())
    onnx.save(model, path)
    return path, manifest


def _model(
    nodes: list[onnx.NodeProto],
    image: onnx.ValueInfoProto,
    batch: int | None,
    outputs: list[tuple[str, list[int | str] | None]],
) -> onnx.ModelProto:
    weights = np.random.default_rng(0).normal(0, 0.05, (DIM, 3, 3, 3)).astype(np.float32)
    nodes = [
        *nodes,
        helper.make_node("Conv", ["planes", "weights"], ["maps"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["f_i"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs]
    graph = helper.make_graph(nodes, "tiny", [image], values, [numpy_helper.from_array(weights, "weights")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], producer_name="other")
    model.ir_version = 8
    return model
