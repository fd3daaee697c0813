"""What a network does first with its images: the numbers that it subtracts, divides by or multiplies with.

Field numbers are those of ``onnx.proto``.
"""

import struct
from collections.abc import Mapping

from reidruntime.artifact.protobuf import Message

_FLOAT = 1
_ARITHMETIC = ("Sub", "Div", "Mul", "Add")
_PASSED_OVER = ("Cast", "Identity", "Transpose")
_MOST_STEPS = 6
_CHANNELS = 3

Step = tuple[str, tuple[float, ...]]


def first_arithmetic(graph: Message, image: str) -> tuple[Step, ...]:
    """Operators by one number, or by one for each channel, up to the first other operator.

    Args:
        graph: GraphProto: node = 1, initializer = 5.
        image: the name of its input.

    Returns:
        Each operator with its numbers, such as ``("Div", (255.0,))``, in their order.
    """
    nodes = graph.messages(1)
    # TensorProto: name = 8; AttributeProto: t = 5.
    constants = {tensor.text(8): tensor for tensor in graph.messages(5)}
    for node in nodes:
        if node.text(4) == "Constant":
            tensors = [each for attribute in node.messages(5) for each in attribute.messages(5)]
            constants |= dict(zip(node.texts(2), tensors, strict=False))
    steps: list[Step] = []
    name = image
    for _ in range(_MOST_STEPS):
        # NodeProto: input = 1, output = 2, op_type = 4.
        readers = [node for node in nodes if name in node.texts(1)]
        if len(readers) != 1 or not readers[0].texts(2):
            break
        op, inputs = readers[0].text(4), readers[0].texts(1)
        if op in _ARITHMETIC:
            numbers = _numbers(constants, inputs[1:]) if inputs[0] == name else ()
            if not numbers:
                break
            steps.append((op, numbers))
        elif op not in _PASSED_OVER:
            break
        name = readers[0].texts(2)[0]
    return tuple(steps)


def _numbers(constants: Mapping[str, Message], names: tuple[str, ...]) -> tuple[float, ...]:
    """TensorProto: data_type = 2, float_data = 4, raw_data = 9; nothing of other tensors than one or three floats."""
    tensor = constants.get(names[0]) if len(names) == 1 else None
    if tensor is None or _FLOAT not in tensor.integers(2):
        return ()
    raw = b"".join(tensor.contents(9)) or b"".join(tensor.contents(4))
    if len(raw) not in (4, 4 * _CHANNELS):
        return ()
    return struct.unpack(f"<{len(raw) // 4}f", raw)
