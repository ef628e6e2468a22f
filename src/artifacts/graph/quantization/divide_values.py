"""Divide values by a scale for each channel, and multiply their consumers' weights by it: the model computes the same.

A division is folded into constants that the value is computed from, if that changes no other value. Otherwise a Mul is
inserted in front of the consumers.

To find these constants, a path goes from the value's last axis back through the graph. It passes nodes that keep
channels separate (Identity, Relu, Transpose). It also passes the Add of a constant; then this constant is divided too.
It ends at one of these: gamma and beta of a LayerNormalization, the columns of a MatMul's weight, the output channels
of a Conv, the constant of a Mul. No value on the path may have a consumer off the path, or be an output of the model.
Shape nodes do not count as consumers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from artifacts.graph.graph_lookup import attribute_value
from artifacts.graph.nodes import consumed_names, replace_nodes
from artifacts.graph.quantization.matrix_content import ScaledContent, matrix_sizes
from artifacts.graph.tensor_content import stored_content

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXPLICIT_MUL = "explicit Mul"

_Factors = dict[int, "NDArray[np.float32]"]


@dataclass(frozen=True)
class ScaledValue:
    """A value `[..., C]`, the positive numbers `[C]` to divide it by, and the MatMuls that consume the quotient."""

    value: str
    consumers: Sequence[NodeProto]
    scale: NDArray[np.float32]


@dataclass(frozen=True)
class DivisionResult:
    """Result of the divisions.

    `into` has the op that the division of each value was folded into, or EXPLICIT_MUL. `contents` has the new content
    of each initializer that changes.
    """

    into: dict[str, str]
    contents: dict[str, ScaledContent]


def divide_values(model: ModelProto, scaled: Sequence[ScaledValue], folder: Path) -> DivisionResult:
    """Divide the values in the model's graph, and return the new contents of its constants.

    `folder` contains the model's external data. A constant that has other consumers too stays as it is: the node that
    needs new numbers gets a copy.
    """
    folding = _Divider(model)
    into = {}
    for one in scaled:
        names = {node.output[0] for node in one.consumers}
        inputs = folding.inputs_to_divide(one.value, names, -1, len(one.scale))
        for constant in inputs:
            folding.multiply(constant, (1 / one.scale).astype(np.float32))
        for node in one.consumers:
            folding.multiply(_ConstantInput(node, 1, 0), one.scale)
        if not inputs:
            folding.add_mul(one)
        into[one.value] = inputs[0].node.op_type if inputs else EXPLICIT_MUL
    folding.finish()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    contents = {name: _content(tensors[name], factors, folder) for name, factors in folding.factors.items()}
    return DivisionResult(into, contents)


def _content(tensor: TensorProto, factors: _Factors, folder: Path) -> ScaledContent:
    rows, columns = matrix_sizes(tensor)
    by_row, by_column = np.ones(rows, np.float32), np.ones(columns, np.float32)
    for axis, factor in factors.items():
        if axis == 0:
            by_row = factor
        else:
            by_column = np.tile(factor, columns // len(factor))
    return ScaledContent(stored_content(tensor, folder), by_row, by_column)


@dataclass(frozen=True)
class _ConstantInput:
    """A constant input of a node, and the axis of the constant's channels: the first or the last."""

    node: NodeProto
    index: int
    axis: int


class _Divider:
    def __init__(self, model: ModelProto) -> None:
        self._graph = model.graph
        self._outputs = {value.name for value in model.graph.output}
        self._producers = {name: node for node in model.graph.node for name in node.output}
        self._constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        for value in model.graph.input:  # an initializer of that name is only its default
            self._constants.pop(value.name, None)
        self._consumers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(consumed_names(node)):
                self._consumers.setdefault(name, []).append(node)
        self._muls: dict[str, NodeProto] = {}  # Mul to insert before a node, by the first output of that node
        self.factors: dict[str, _Factors] = {}  # by name of an initializer: factors for each axis

    def inputs_to_divide(
        self, value: str, consumers: Collection[str], axis: int, channels: int
    ) -> list[_ConstantInput]:
        """Return the constants to divide, so that a value's channels on `axis` are divided.

        The constants at the end of the path come first, then those of each Add on it. `axis` is negative: it is counted
        from the end. `consumers` are outputs of the nodes that consume the quotient. The list is empty if the division
        cannot be folded.
        """
        passed: list[_ConstantInput] = []
        while True:  # not a recursion: a path may be longer than Python's limit
            node = self._foldable_producer(value, consumers)
            if node is None:
                return []
            consumers = {node.output[0]}
            match node.op_type:
                case "Identity" | "Relu":
                    value = node.input[0]
                    continue
                case "Transpose":
                    order = attribute_value(node, "perm", ())
                    if not -len(order) <= axis < 0:
                        return []
                    value, axis = node.input[0], order[axis] - len(order)
                    continue
                case "Add" if axis == -1:
                    # Divide a constant with one number per channel, and follow the other input.
                    candidates = (
                        index for index in (0, 1) if self._divisible([_ConstantInput(node, index, -1)], channels)
                    )
                    index = next(candidates, None)
                    if index is None:
                        return []
                    passed.insert(0, _ConstantInput(node, index, -1))
                    value = node.input[1 - index]
                    continue
            ends = self._ends(node, axis, channels)
            return [*ends, *passed] if ends else []

    def _foldable_producer(self, value: str, consumers: Collection[str]) -> NodeProto | None:
        """Return the node that produces the value.

        None if the value is an output of the model, has other consumers, or comes from an op that is not ONNX's.
        """
        others = (node for node in self._consumers.get(value, []) if node.op_type != "Shape")
        if value in self._outputs or not all(node.output[0] in consumers for node in others):
            return None
        node = self._producers.get(value)
        return node if node is not None and node.domain in ("", "ai.onnx") else None

    def _ends(self, node: NodeProto, axis: int, channels: int) -> list[_ConstantInput]:
        """Return the constants in which the path ends at this node; empty if it cannot end here."""
        match node.op_type:
            case "Conv":
                inputs = [_ConstantInput(node, index, 0) for index in (1, 2) if index < len(node.input)]
                weight = self._constant(node.input[1])
                return self._divisible(inputs, channels) if weight and axis == 1 - len(weight.dims) else []
            case "LayerNormalization" if axis == -1 and attribute_value(node, "axis", -1) == -1:
                return self._divisible(
                    [_ConstantInput(node, index, -1) for index in range(1, len(node.input))], channels
                )
            case "MatMul" if axis == -1:
                return self._divisible([_ConstantInput(node, 1, -1)], channels)
            case "Mul" if axis == -1:
                found = (self._divisible([_ConstantInput(node, index, -1)], channels) for index in (0, 1))
                return next((inputs for inputs in found if inputs), [])
        return []

    def _divisible(self, inputs: list[_ConstantInput], channels: int) -> list[_ConstantInput]:
        """Return the inputs if all are float32 constants with one number per channel, else an empty list."""
        for constant in inputs:
            tensor = self._constant(constant.node.input[constant.index])
            if tensor is None or tensor.data_type != TensorProto.FLOAT or not tensor.dims:
                return []
            if tensor.dims[constant.axis] != channels:
                return []
        return inputs

    def _constant(self, name: str) -> TensorProto | None:
        if name in self._constants:
            return self._constants[name]
        node = self._producers.get(name)
        if node is None or node.op_type != "Constant" or node.attribute[0].name != "value":
            return None
        value: TensorProto = node.attribute[0].t
        return value

    def multiply(self, constant: _ConstantInput, factor: NDArray[np.float32]) -> None:
        tensor = self._own_constant(constant.node, constant.index)
        axes = self.factors.setdefault(tensor.name, {})
        axis = constant.axis % len(tensor.dims)
        axes[axis] = factor * axes.get(axis, np.float32(1))

    def _own_constant(self, node: NodeProto, index: int) -> TensorProto:
        """Return a node's constant as an initializer without other consumers; make a copy if it has any."""
        name = node.input[index]
        alone = len(self._consumers[name]) == 1 and list(node.input).count(name) == 1 and name not in self._outputs
        if alone and name in self._constants:
            return self._constants[name]
        values = self._constant(name)
        assert values is not None
        copy = self._add_initializer(values, f"{name}/{node.output[0]}")
        self._consumers[name] = [other for other in self._consumers[name] if other.output[0] != node.output[0]]
        self._consumers[copy.name] = [node]
        node.input[index] = copy.name
        return copy

    def _add_initializer(self, values: TensorProto, name: str) -> TensorProto:
        tensor: TensorProto = self._graph.initializer.add()
        tensor.CopyFrom(values)
        tensor.name = name
        self._constants[name] = tensor
        return tensor

    def add_mul(self, one: ScaledValue) -> None:
        factor, smoothed = f"{one.value}/smoothing", f"{one.value}/smoothed"
        self._add_initializer(numpy_helper.from_array((1 / one.scale).astype(np.float32), factor), factor)
        mul = helper.make_node("Mul", [one.value, factor], [smoothed], name=f"{one.value}/smoothing_Mul")
        outputs = {node.output[0] for node in one.consumers}
        self._muls.update(dict.fromkeys(outputs, mul))
        for node in one.consumers:
            node.input[0] = smoothed
        self._consumers[smoothed] = list(one.consumers)
        others = [node for node in self._consumers[one.value] if node.output[0] not in outputs]
        self._consumers[one.value] = [*others, mul]
        self._producers[smoothed] = mul

    def finish(self) -> None:
        """Insert each Mul in front of its first consumer, and drop Constants without consumers."""
        nodes: list[NodeProto] = []
        inserted: set[str] = set()
        for node in self._graph.node:
            output = node.output[0]
            mul = self._muls.get(output)
            if mul is not None and mul.name not in inserted:
                nodes.append(mul)
                inserted.add(mul.name)
            if not (node.op_type == "Constant" and self._consumers.get(output) == [] and output not in self._outputs):
                nodes.append(node)
        replace_nodes(self._graph, nodes)
