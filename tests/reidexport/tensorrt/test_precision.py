"""What TensorRT reports of the precision that layers compute in, and what proves it."""

import json

import pytest

from reidexport.errors import PrecisionError
from reidexport.tensorrt.precision import (
    ComputingLayer,
    check_precision,
    check_whole_layers,
    count_kinds,
    count_precisions,
    layers_of_engine,
)


def test_both_dialects_of_the_inspector_are_read() -> None:
    """TensorRT 10 names a type within a format, TensorRT 11 outright; weights decide where they are listed."""
    ten = """{"Layers": [
        {"Name": "reformat", "LayerType": "Reformat", "Inputs": [{"Format/Datatype": "Row major linear FP32"}]},
        {"Name": "stem", "LayerType": "CaskConvActPool", "ParameterType": "Convolution",
         "Inputs": [{"Format/Datatype": "Row major linear FP32"}], "Weights": {"Type": "Half", "Count": 9408}},
        {"Name": "a", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Channel major FP16 format"}]},
        {"Name": "fc", "LayerType": "CaskGemmMatrixMultiply", "Inputs": [{"Format/Datatype": "Half"}]}],
        "Bindings": ["images", "f_i"]}"""
    eleven = """{"Layers": [
        {"Name": "stem", "LayerType": "correlation", "Metadata": "[ONNX Layer: node_conv2d]",
         "Inputs": [{"Format": "Row major linear", "DataType": "Float"}], "Outputs": [{"DataType": "Half"}]},
        {"Name": "a", "LayerType": "CaskConvolution", "Inputs": [{"DataType": "Int8"}]},
        {"Name": "b", "LayerType": "CaskConvolution", "Inputs": [{"DataType": "Float"}]}],
        "I/O Tensors": [{"Name": "images"}]}"""
    assert layers_of_engine(ten) == [
        *convolutions("stem", "a"),
        ComputingLayer("fc", "matrix product", "fp16"),
    ]
    assert layers_of_engine(eleven) == [
        ComputingLayer("stem", "convolution", "unproved"),
        ComputingLayer("a", "convolution", "int8"),
        ComputingLayer("b", "convolution", "fp32"),
    ]


def convolutions(*names: str) -> list[ComputingLayer]:
    """FP16 convolutions of a parsed network."""
    return [ComputingLayer(name, "convolution", "fp16") for name in names]


def entry(
    name: str, kind: str, inputs: str, outputs: str, metadata: str = "", weights: str = ""
) -> dict[str, object]:
    """An entry of the inspector, with tensors of the types that are named."""
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [{"DataType": dtype} for dtype in inputs.split()],
        "Outputs": [{"DataType": dtype} for dtype in outputs.split()],
        "Metadata": metadata,
        "Weights": {"Type": weights},
    }


@pytest.mark.parametrize(
    ("inputs", "outputs", "weights", "precision"),
    [
        ("Half", "Half", "", "fp16"),
        ("Half", "Float", "", "fp16"),
        ("Half Float", "Half", "", "fp16"),  # its second input is what is added
        ("Float", "Half", "", "unproved"),
        ("Half", "Int8", "", "unproved"),
        ("Half", "Int8", "Half", "fp16"),
        ("Float", "Half", "Half", "fp16"),
        ("Half", "Half", "Float", "fp32"),
        ("Int8 Half", "Int8", "", "int8"),
        ("UInt8", "Half", "", "fp16"),  # raw pixels are no int8 network
        ("BFloat16", "BFloat16", "", "bf16"),
        ("Int32", "Int32", "", "other"),
    ],
)
def test_a_convolution_computes_in_the_type_of_its_weights_or_input(
    inputs: str, outputs: str, weights: str, precision: str
) -> None:
    """A narrower output proves nothing: it may be cast after a wide convolution."""
    layers = {"Layers": [entry("conv", "CaskConvolution", inputs, outputs, weights=weights)]}
    assert layers_of_engine(json.dumps(layers)) == [ComputingLayer("conv", "convolution", precision)]


def test_convolutions_within_entries_of_the_compiler() -> None:
    """They are found by name, and have the one precision of all tensors; what is only moved is no convolution."""
    stem, a, b = (f"[ONNX Layer: node_{name}]" for name in ("stem", "a", "b"))
    plan = json.dumps(
        {
            "Layers": [
                entry("__myl_Cast_myl0_0", "kgen", "Float", "Half", metadata=stem),
                entry(
                    "node_stem_myl0_1",
                    "correlation",
                    "Half",
                    "Half",
                    metadata=f"{stem}[ONNX Layer: conv_relu]",
                ),
                entry(
                    "__myl_ConvRelu_myl0_2",
                    "kgen",
                    "Half Half",
                    "Half",
                    metadata=f"{a}\x1f[ONNX Layer: relu]",
                ),
                entry("node_b + relu", "Myelin", "Half", "Float"),
                entry(
                    "__myl_ReluConv_myl0_3",
                    "kgen",
                    "Float",
                    "Float",
                    metadata="[ONNX Layer: conv_block/relu]",
                ),
                entry("Reformatting CopyNode for Input Tensor 0 to node_c", "Reformat", "Float", "Half"),
            ]
        }
    )
    names = ["node_stem", "node_a", "node_b", "node_c"]
    assert layers_of_engine(plan, convolutions(*names)) == [
        ComputingLayer("node_stem_myl0_1", "convolution", "fp16"),
        ComputingLayer("__myl_ConvRelu_myl0_2", "convolution", "fp16"),
        ComputingLayer("node_b + relu", "convolution", "unproved"),
        ComputingLayer("node_c", "convolution", "unproved"),
    ]
    assert layers_of_engine(plan, convolutions(*names[:3]))[-1] == ComputingLayer(
        "node_b + relu", "convolution", "unproved"
    )
    assert b not in plan


def test_every_profile_of_a_plan_must_show_its_convolutions() -> None:
    """What the second profile hides is not proved by the first; entries without names count."""
    first = entry("node_a", "CaskConvolution", "Half", "Half")
    moved = entry("node_a [profile 1]", "Reformat", "Half", "Half")
    nameless = entry("__myl_3 [profile 1]", "correlation", "Half", "Half", metadata="conv")
    hidden = json.dumps({"Layers": [first, moved]})
    assert layers_of_engine(hidden, convolutions("node_a")) == [
        ComputingLayer("node_a", "convolution", "fp16"),
        ComputingLayer("node_a", "convolution", "unproved"),
    ]
    shown = json.dumps({"Layers": [first, moved, nameless]})
    assert layers_of_engine(shown, convolutions("node_a")) == [
        *convolutions("node_a", "__myl_3 [profile 1]"),
    ]


def test_what_counts_as_the_precision_asked_for() -> None:
    """INT8 files may keep as many wide convolutions as they state; an FP32 engine has FP32 convolutions only."""
    layers = [
        ComputingLayer("a", "convolution", "int8"),
        ComputingLayer("b", "convolution", "fp32"),
        ComputingLayer("fc", "matrix product", "fp32"),
    ]
    check_precision(layers, "int8", "engine", num_float_convolutions=1)
    with pytest.raises(
        PrecisionError, match=r"1 of 2 convolutions of the engine are not int8, expected none:\n  b: fp32"
    ):
        check_precision(layers, "int8", "engine")
    with pytest.raises(PrecisionError, match="  a: int8"):
        check_precision(layers, "fp32", "engine")
    hidden = [ComputingLayer("a", "convolution", "fp16"), ComputingLayer("b", "convolution", "unproved")]
    with pytest.raises(
        PrecisionError, match=r"1 of 2 .* cannot be proved to be fp16, expected none:\n  b: unproved"
    ):
        check_precision(hidden, "fp16", "engine")
    check_precision(hidden, "fp16", "engine", allow_unproved=True)
    with pytest.raises(PrecisionError, match=r"1 of 3 .* are not fp16, expected none:\n  c: fp32"):
        check_precision(
            [*hidden, ComputingLayer("c", "convolution", "fp32")], "fp16", "engine", allow_unproved=True
        )
    with pytest.raises(PrecisionError, match="shows no convolution"):
        check_precision(layers[2:], "fp16", "network")
    wide = [ComputingLayer(f"conv{i}", "convolution", "fp32") for i in range(12)]
    with pytest.raises(PrecisionError, match=r"(?s)12 of 12 .*\n  conv9: fp32\n  and 2 more"):
        check_precision(wide, "fp16", "network")


def test_layers_of_transformers_are_counted_by_kind() -> None:
    """Each is proved by the entry that names it; what shares an entry with another, or casts, is unproved."""
    parsed = [
        *convolutions("patches"),
        *(ComputingLayer(name, "matrix product", "fp16") for name in ("qkv", "logits", "mlp")),
        ComputingLayer("norm", "normalization", "fp32"), ComputingLayer("soft", "softmax", "fp16"),
    ]  # fmt: skip
    plan = json.dumps(
        {
            "Layers": [
                entry("patches", "CaskConvolution", "Half", "Half"),
                entry("qkv_myl0_1", "gemm", "Half", "Half", metadata="[ONNX Layer: qkv]"),
                entry(
                    "__myl_0",
                    "kgen",
                    "Half Half",
                    "Half",
                    metadata="[ONNX Layer: logits]\x1f[ONNX Layer: soft]",
                ),
                entry("__myl_1", "kgen", "Half", "Float", metadata="[ONNX Layer: norm]"),
            ]
        }
    )
    assert count_kinds(layers_of_engine(plan, parsed)) == {
        "convolution": {"fp16": 1},
        "matrix product": {"fp16": 2, "unproved": 1},
        "normalization": {"unproved": 1},
        "softmax": {"fp16": 1},
    }
    assert count_precisions(parsed) == {"fp16": 4}


def test_fp16_products_and_whole_norms_are_asked_for() -> None:
    """A product of the file's FP16 ones that is fp32 is refused by name, and so is a LayerNormalization in pieces."""
    layers = [*convolutions("patches"), ComputingLayer("qkv", "matrix product", "fp32")]
    check_precision(layers, "fp16", "network")
    with pytest.raises(
        PrecisionError, match="1 of 1 matrix products of the network are fp32, expected fp16: first qkv"
    ):
        check_precision(layers, "fp16", "network", fp16_products=["qkv"])
    check_whole_layers([ComputingLayer("norm1", "normalization", "fp32")], ["norm1"])
    with pytest.raises(
        PrecisionError, match=r"has taken 1 of 2 LayerNormalizations apart, first norm2: their sums"
    ):
        check_whole_layers([ComputingLayer("norm1", "normalization", "fp32")], ["norm1", "norm2"])
