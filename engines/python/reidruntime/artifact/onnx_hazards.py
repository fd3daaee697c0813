"""What makes an ONNX file answer wrongly or not at all, read from its messages: weights elsewhere, training mode.

Field numbers are those of ``onnx.proto``.
"""

from collections.abc import Iterable, Iterator
from itertools import chain

from reidruntime.artifact.protobuf import MalformedError, Message

_EXTERNAL, _BOOL = 1, 9
_OWN_DOMAINS = ("", "ai.onnx")
_TRAINING_MODE_OPSET = 14  # BatchNormalization's attribute; before it, more outputs than one mean the same


def external_files(model: Message) -> dict[str, int]:
    """The files beside the model that hold weights, by name: how many bytes each must have at least.

    TensorProto: external_data = 13 {key = 1, value = 2}, data_location = 14.
    """
    needed: dict[str, int] = {}
    for tensor in _tensors(model):
        if _EXTERNAL not in tensor.integers(14):
            continue
        entries = {entry.text(1): entry.text(2) for entry in tensor.messages(13)}
        location = entries.get("location", "")
        texts = [entries.get(key, "0") for key in ("offset", "length")]
        if any(len(text) > 19 for text in texts):
            raise MalformedError("external data of more bytes than a file can have")
        end = sum(int(text) for text in texts if text.isdecimal())
        needed[location] = max(needed.get(location, 0), end)
    return needed


def training_nodes(model: Message) -> tuple[str, ...]:
    """The nodes that compute as in training, by operator and name.

    BatchNormalization then normalizes by the batch that it gets, Dropout drops features at random.
    """
    opsets = [
        version for each in model.messages(8) if each.text(1) in _OWN_DOMAINS for version in each.integers(2)
    ]
    opset = max(opsets, default=0)
    found = []
    for nodes, initializers in _node_lists(model):
        true = {tensor.text(8) for tensor in initializers if _is_true(tensor)}
        for node in nodes:
            # NodeProto: input = 1, output = 2, name = 3, op_type = 4, attribute = 5, domain = 7.
            op, inputs = node.text(4), node.texts(1)
            if node.text(7) not in _OWN_DOMAINS:
                continue
            if op == "Constant" and any(map(_is_true, _attribute_tensors(node))):
                true.update(node.texts(2))
            trains = op == "Dropout" and len(inputs) > 2 and inputs[2] in true
            if trains or (op == "BatchNormalization" and _normalizes_by_batch(node, opset)):
                found.append(f"{op} {node.text(3) or ', '.join(node.texts(2)[:1])!r}")
    return tuple(found)


def _normalizes_by_batch(node: Message, opset: int) -> bool:
    """AttributeProto: name = 1, i = 3."""
    if opset < _TRAINING_MODE_OPSET:
        return any(node.texts(2)[1:])
    return any(1 in each.integers(3) for each in node.messages(5) if each.text(1) == "training_mode")


def _node_lists(model: Message) -> Iterator[tuple[list[Message], list[Message]]]:
    """Nodes and initializers of the graph, then of functions.

    ModelProto: graph = 7 {node = 1, initializer = 5}, functions = 25 {node = 7}.
    """
    for graph in model.messages(7):
        yield graph.messages(1), graph.messages(5)
    for function in model.messages(25):
        yield function.messages(7), []


def _tensors(model: Message) -> Iterator[Message]:
    for nodes, initializers in _node_lists(model):
        yield from initializers
        yield from chain.from_iterable(map(_attribute_tensors, nodes))


def _attribute_tensors(node: Message) -> Iterable[Message]:
    """AttributeProto: t = 5."""
    return chain.from_iterable(attribute.messages(5) for attribute in node.messages(5))


def _is_true(tensor: Message) -> bool:
    """TensorProto: data_type = 2, int32_data = 5, raw_data = 9."""
    if _BOOL not in tensor.integers(2):
        return False
    return any(tensor.integers(5)) or any(map(any, tensor.contents(9)))
