"""Other opsets than the exporter's own: the same answers, or a refusal that names those which would do."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

from reidexport.errors import InputError
from reidexport.export.onnx_check import open_onnx
from reidexport.export.opsets import LATEST, OLDEST, OPSET, check_opset, in_older_opset

# What the exporter writes of networks with attention, instance norms, GeM, unit norms and dynamic shapes.
NETWORK = """
<ir_version: 10, opset_import: ["": 18]>
network (uint8[batch, 8, 4, 3] images) => (float[batch, 6] f_i)
<int64[1] channel = {1}, int64[2] spatial = {2, 3}, int64[2] halves = {3, 3}, int64[1] six = {6},
 float least = {0.000001}, float three = {3}, float[3] one = {1, 1, 1}, float[3] zero = {0, 0, 0}>
{
    floats = Cast<to = 1>(images)
    planes = Transpose<perm = [0, 3, 1, 2]>(floats)
    normed = InstanceNormalization<epsilon = 0.001>(planes, one, zero)
    both = Concat<axis = 1>(normed, planes)
    left, right = Split<axis = 1>(both, halves)
    same_left, same_right = Split<axis = 1, num_outputs = 2>(both)
    sums = Add(left, same_right)
    joined = Concat<axis = 1>(sums, right)
    limited = Clip(joined, least)
    powered = Pow(limited, three)
    pooled = ReduceMean<keepdims = 1, noop_with_empty_axes = 0>(powered, spatial)
    flat = Squeeze(pooled, spatial)
    wide = Unsqueeze(flat, spatial)
    count = Shape<end = 1, start = 0>(wide)
    shape = Concat<axis = 0>(count, six)
    rows = Reshape<allowzero = 1>(wide, shape)
    shares = Softmax(rows)
    weighed = Mul(rows, shares)
    squares = Mul(weighed, weighed)
    sum = ReduceSum<keepdims = 1>(squares, channel)
    norm = Sqrt(sum)
    f_i = Div(weighed, norm)
}
"""


@pytest.mark.parametrize("opset", range(OLDEST, OPSET))
def test_an_older_opset_answers_the_same(opset: int) -> None:
    """Axes, parts of shapes, splits and implied attributes are said in the opset's own way; the answers are equal."""
    model = parser.parse_model(NETWORK)
    older = in_older_opset(model, opset)
    assert [entry.version for entry in older.opset_import] == [opset]
    assert older.ir_version <= model.ir_version
    onnx.checker.check_model(older, full_check=True)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 4, 3), dtype=np.uint8)
    expected = open_onnx(model.SerializeToString())(images)
    np.testing.assert_allclose(open_onnx(older.SerializeToString())(images), expected, rtol=1e-5)
    assert model == parser.parse_model(NETWORK)


@pytest.mark.parametrize(
    ("node", "opset", "oldest", "reason"),
    [
        (helper.make_node("HardSwish", ["x"], ["y"]), 11, 14, "No Op registered for HardSwish"),
        (helper.make_node("Softmax", ["x"], ["y"], name="s", axis=1), 12, 13, "Softmax 's' is over axis 1"),
    ],
)
def test_what_an_opset_cannot_represent_is_refused(
    node: onnx.NodeProto, opset: int, oldest: int, reason: str
) -> None:
    """An operator that came later, and one that meant something else, are named with the opsets that have them."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 2, 2]) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    message = rf"opset {opset} cannot represent this network, opset {oldest} to {LATEST} can: .*{reason}"
    with pytest.raises(InputError, match=message):
        in_older_opset(model, opset)
    assert in_older_opset(model, oldest).opset_import[0].version == oldest


@pytest.mark.parametrize(
    ("precision", "opset", "range_"),
    [
        ("fp32", 10, f"FP32 files are written in opset 11 to {LATEST}"),
        ("fp16", LATEST + 1, f"FP16 files are written in opset 11 to {LATEST}"),
        ("int8", 12, f"INT8 files are written in opset 13 to {LATEST} .*, FP32 and FP16 files from 11 on"),
    ],
)
def test_the_range_of_a_precision_is_named(precision: Any, opset: int, range_: str) -> None:
    """An opset outside it is refused before anything is exported."""
    with pytest.raises(InputError, match=f"opset {opset}: {range_}"):
        check_opset(opset, precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_opset_of_the_range_is_allowed(precision: Any) -> None:
    """Both ends belong to it."""
    for opset in range(OLDEST, LATEST + 1):
        check_opset(opset, precision)
