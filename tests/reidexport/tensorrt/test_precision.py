"""What TensorRT reports of the precision that layers compute in, and what proves it."""

import json

import pytest

from reidexport.errors import PrecisionError
from reidexport.tensorrt.precision import WeightedLayer, check_precision, layers_of_engine


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
        WeightedLayer("stem", True, "fp16"), WeightedLayer("a", True, "fp16"), WeightedLayer("fc", False, "fp16"),
    ]  # fmt: skip
    assert layers_of_engine(eleven) == [
        WeightedLayer("stem", True, "unproved"), WeightedLayer("a", True, "int8"), WeightedLayer("b", True, "fp32"),
    ]  # fmt: skip


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
    assert layers_of_engine(json.dumps(layers)) == [WeightedLayer("conv", True, precision)]


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
    assert layers_of_engine(plan, names) == [
        WeightedLayer("node_stem_myl0_1", True, "fp16"),
        WeightedLayer("__myl_ConvRelu_myl0_2", True, "fp16"),
        WeightedLayer("node_b + relu", True, "unproved"),
        WeightedLayer("node_c", True, "unproved"),
    ]
    assert layers_of_engine(plan, names[:3])[-1] == WeightedLayer("node_b + relu", True, "unproved")
    assert b not in plan


def test_every_profile_of_a_plan_must_show_its_convolutions() -> None:
    """What the second profile hides is not proved by the first; entries without names count."""
    first = entry("node_a", "CaskConvolution", "Half", "Half")
    moved = entry("node_a [profile 1]", "Reformat", "Half", "Half")
    nameless = entry("__myl_3 [profile 1]", "correlation", "Half", "Half", metadata="conv")
    hidden = json.dumps({"Layers": [first, moved]})
    assert layers_of_engine(hidden, ["node_a"]) == [
        WeightedLayer("node_a", True, "fp16"),
        WeightedLayer("node_a", True, "unproved"),
    ]
    shown = json.dumps({"Layers": [first, moved, nameless]})
    assert layers_of_engine(shown, ["node_a"]) == [
        WeightedLayer("node_a", True, "fp16"), WeightedLayer("__myl_3 [profile 1]", True, "fp16"),
    ]  # fmt: skip


def test_what_counts_as_the_precision_asked_for() -> None:
    """INT8 files may keep as many wide convolutions as they state; an FP32 engine has FP32 convolutions only."""
    layers = [
        WeightedLayer("a", True, "int8"),
        WeightedLayer("b", True, "fp32"),
        WeightedLayer("fc", False, "fp32"),
    ]
    check_precision(layers, "int8", "engine", num_float_convolutions=1)
    with pytest.raises(
        PrecisionError, match=r"1 of 2 convolutions of the engine are not int8, expected none:\n  b: fp32"
    ):
        check_precision(layers, "int8", "engine")
    with pytest.raises(PrecisionError, match="  a: int8"):
        check_precision(layers, "fp32", "engine")
    hidden = [WeightedLayer("a", True, "fp16"), WeightedLayer("b", True, "unproved")]
    with pytest.raises(
        PrecisionError, match=r"1 of 2 .* cannot be proved to be fp16, expected none:\n  b: unproved"
    ):
        check_precision(hidden, "fp16", "engine")
    check_precision(hidden, "fp16", "engine", allow_unproved=True)
    with pytest.raises(PrecisionError, match=r"1 of 3 .* are not fp16, expected none:\n  c: fp32"):
        check_precision([*hidden, WeightedLayer("c", True, "fp32")], "fp16", "engine", allow_unproved=True)
    with pytest.raises(PrecisionError, match="shows no convolution"):
        check_precision(layers[2:], "fp16", "network")
    wide = [WeightedLayer(f"conv{i}", True, "fp32") for i in range(12)]
    with pytest.raises(PrecisionError, match=r"(?s)12 of 12 .*\n  conv9: fp32\n  and 2 more"):
        check_precision(wide, "fp16", "network")
