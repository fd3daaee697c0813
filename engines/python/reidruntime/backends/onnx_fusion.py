"""An ONNX graph with fewer passes over its maps: what a GPU can do in one call becomes one node.

Networks on a GPU wait for memory, not for arithmetic: each elementwise step of its own reads and writes a whole map.
A limit above (Clip) stays such a step, as cuDNN has no convolution with it.
The nodes made here, beside ONNX's own:

``ConvRelu`` (x, weight, bias)
``ConvAddRelu`` (x, weight, bias, z): max(conv(x) + z, 0)
``Normalize`` (images, mean): the transposed images, less the mean, as ``to``; attributes ``perm``, ``to``
``ReduceMean`` with ``to``: the mean of an FP16 map, summed in float32
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from reidruntime.artifact.onnx_graph import Array, OnnxGraph, OnnxNode

_FLOAT = 1  # TensorProto's data type


def fuse(graph: OnnxGraph, outputs: tuple[str, ...]) -> OnnxGraph:
    """The same network in fewer nodes; ``outputs`` are the tensors that somebody reads."""
    nodes, constants = list(graph.nodes), dict(graph.constants)
    for change in (_pool_before_bias, _fuse_clip, _fuse_relu, _join_biases, _fuse_normalization, _fuse_mean):
        links = _Links(nodes, constants, outputs)
        change(links)
        nodes = links.remaining()
    return replace(graph, nodes=tuple(nodes), constants=constants)


class _Links:
    """Who writes and who reads each tensor, and what a pass changes."""

    def __init__(self, nodes: list[OnnxNode], constants: dict[str, Array], outputs: tuple[str, ...]) -> None:
        self.nodes, self.constants = nodes, constants
        self._writers = {name: node for node in nodes for name in node.outputs}
        self._num_readers = Counter([*outputs, *(name for node in nodes for name in node.inputs)])
        self._changed: dict[int, tuple[OnnxNode, ...]] = {}

    def only_writer(self, name: str, op: str) -> OnnxNode | None:
        """The node of that operator that writes a tensor with one reader; None also for a node changed in this pass."""
        node = self._writers.get(name)
        is_it = node is not None and node.op == op and self._num_readers[name] == 1
        return node if is_it and id(node) not in self._changed else None

    def pairs(self, op: str, before: str) -> Iterator[tuple[OnnxNode, OnnxNode]]:
        """The nodes of an operator with those of another that write their first input, which nothing else reads."""
        for node in self.nodes:
            writer = self.only_writer(node.inputs[0], before) if node.op == op else None
            if writer is not None:
                yield node, writer

    def change(self, node: OnnxNode, *new: OnnxNode) -> None:
        """Put others in a node's place; none takes it out."""
        self._changed[id(node)] = new

    def remaining(self) -> list[OnnxNode]:
        """The nodes after all changes."""
        return [new for node in self.nodes for new in self._changed.get(id(node), (node,))]


def _pool_before_bias(links: _Links) -> None:
    """Conv → MaxPool: the bias is added to the pooled map, a quarter of the size; no bit of the answer changes."""
    for pool, conv in links.pairs("MaxPool", "Conv"):
        if len(conv.inputs) < 3 or conv.inputs[2] not in links.constants:
            continue
        pooled, bias = f"{pool.outputs[0]}_without_bias", f"{conv.inputs[2]}_per_channel"
        links.constants[bias] = links.constants[conv.inputs[2]].reshape(-1, 1, 1)
        links.change(conv, replace(conv, inputs=conv.inputs[:2]))
        added = OnnxNode("Add", f"{pool.name}_bias", (pooled, bias), pool.outputs, {})
        links.change(pool, replace(pool, outputs=(pooled,)), added)


def _fuse_clip(links: _Links) -> None:
    """Conv → Clip from 0: a ConvRelu, and a Clip with the upper limit alone."""
    for clip, conv in links.pairs("Clip", "Conv"):
        lowest = links.constants.get(clip.inputs[1]) if len(clip.inputs) > 1 else None
        if lowest is not None and not lowest.any():
            positive = f"{clip.outputs[0]}_positive"
            links.change(conv, replace(conv, op="ConvRelu", outputs=(positive,)))
            links.change(clip, replace(clip, inputs=(positive, "", *clip.inputs[2:])))


def _fuse_relu(links: _Links) -> None:
    """Conv → Relu, and Conv → Add → Relu."""
    for relu, conv in links.pairs("Relu", "Conv"):
        links.change(relu, replace(conv, op="ConvRelu", outputs=relu.outputs))
        links.change(conv)
    for relu, add in links.pairs("Relu", "Add"):
        for name, other in (add.inputs, add.inputs[::-1]):
            summand = links.only_writer(name, "Conv")
            if summand is not None and other not in links.constants:
                inputs = (*summand.inputs[:2], summand.inputs[2] if len(summand.inputs) > 2 else "", other)
                links.change(relu, replace(summand, op="ConvAddRelu", inputs=inputs, outputs=relu.outputs))
                links.change(summand)
                links.change(add)
                break


def _join_biases(links: _Links) -> None:
    """What is added by a ConvAddRelu comes out of a Conv of its own: one of them adds both biases."""
    for node in links.nodes:
        other = links.only_writer(node.inputs[3], "Conv") if node.op == "ConvAddRelu" else None
        if other is None or len(other.inputs) < 3 or not node.inputs[2]:
            continue
        a, b = (links.constants.get(name) for name in (node.inputs[2], other.inputs[2]))
        if a is None or b is None:
            continue
        both = f"{node.inputs[2]}+{other.inputs[2]}"
        links.constants[both] = np.add(a, b, dtype=np.float64).astype(a.dtype)
        links.change(node, replace(node, inputs=(*node.inputs[:2], both, node.inputs[3])))
        links.change(other, replace(other, inputs=other.inputs[:2]))


def _fuse_normalization(links: _Links) -> None:
    """Cast → Transpose → Sub (→ Cast): bytes are read once, and written in the type that the network computes in."""
    for sub, transpose in links.pairs("Sub", "Transpose"):
        cast = links.only_writer(transpose.inputs[0], "Cast")
        if cast is None or cast.attributes["to"] != _FLOAT or sub.inputs[1] not in links.constants:
            continue
        readers = [node for node in links.nodes if sub.outputs[0] in node.inputs]
        last = readers[0] if len(readers) == 1 and readers[0].op == "Cast" else sub
        attributes = {"perm": transpose.attributes["perm"], "to": last.attributes.get("to", _FLOAT)}
        for node in (cast, transpose, sub):
            links.change(node)
        inputs = (cast.inputs[0], sub.inputs[1])
        links.change(last, OnnxNode("Normalize", sub.name, inputs, last.outputs, attributes))


def _fuse_mean(links: _Links) -> None:
    """Cast to float32 → ReduceMean."""
    for mean, cast in links.pairs("ReduceMean", "Cast"):
        if cast.attributes["to"] == _FLOAT:
            inputs, attributes = (cast.inputs[0], *mean.inputs[1:]), {**mean.attributes, "to": _FLOAT}
            links.change(cast)
            links.change(mean, replace(mean, inputs=inputs, attributes=attributes))
