"""Divide values by scales of their channels, and multiply the weights that read them: the function stays the same.

A division is folded into where the value is made, if that changes nothing else; otherwise a Mul goes in front of the
readers. It moves up from the value's last axis through nodes that treat channels alike (Identity, Relu, Transpose) or
add a constant (whose channels are divided as well), and ends in the constants that made the value: gamma and beta of a
LayerNormalization, the columns of a MatMul's weight, the output channels of a Conv, the constant of a Mul. On its way
no value may have another reader than the path, nor be an output of the model. Readers of a shape alone do not matter.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from artifacts.graph.content import stored_content
from artifacts.graph.node_order import read_names
from artifacts.graph.quantization.matrix_content import ScaledContent, matrix_sizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXPLICIT_MUL = "explicit Mul"

_Factors = dict[int, "NDArray[np.float32]"]


@dataclass(frozen=True)
class ScaledValue:
    """A value `[..., C]`, the MatMuls that are to read it divided, and the positive numbers `[C]` to divide it by."""

    value: str
    readers: Sequence[NodeProto]
    scale: NDArray[np.float32]


@dataclass(frozen=True)
class Folded:
    """What became of the graph."""

    into: dict[str, str]
    """By value: the op that it was folded into, or EXPLICIT_MUL."""
    contents: dict[str, ScaledContent]
    """New values of initializers."""


def fold_scales(model: ModelProto, scaled: Sequence[ScaledValue], folder: Path) -> Folded:
    """Change the model's nodes. The constants' new values are returned, to be written; the old ones are in `folder`.

    A constant with other readers is left to them, and the node that needs another is given a copy.
    """
    rewriter = _Rewriter(model)
    into = {}
    for one in scaled:
        names = {node.output[0] for node in one.readers}
        sites = rewriter.sites(one.value, names, -1, len(one.scale))
        for site in sites:
            rewriter.multiply(site, (1 / one.scale).astype(np.float32))
        for node in one.readers:
            rewriter.multiply(_Site(node, 1, 0), one.scale)
        if not sites:
            rewriter.add_mul(one)
        into[one.value] = sites[0].node.op_type if sites else EXPLICIT_MUL
    rewriter.finish()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    contents = {name: _content(tensors[name], factors, folder) for name, factors in rewriter.factors.items()}
    return Folded(into, contents)


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
class _Site:
    """An input of a node that is a constant, and the axis of it that holds the channels: the first or the last."""

    node: NodeProto
    place: int
    axis: int


class _Rewriter:
    def __init__(self, model: ModelProto) -> None:
        self._graph = model.graph
        self._outputs = {value.name for value in model.graph.output}
        self._producers = {name: node for node in model.graph.node for name in node.output}
        self._constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
        for value in model.graph.input:  # an initializer of that name is a default
            self._constants.pop(value.name, None)
        self._readers: dict[str, list[NodeProto]] = {}
        for node in model.graph.node:
            for name in dict.fromkeys(read_names(node)):
                self._readers.setdefault(name, []).append(node)
        self._muls: dict[str, NodeProto] = {}  # by the output of a node that it is to precede
        self.factors: dict[str, _Factors] = {}
        """By initializer and axis: what to multiply it by."""

    def sites(self, value: str, readers: Collection[str], axis: int, channels: int) -> list[_Site]:
        """Where the channels of a value's axis (counted from the end) are made, the multiplied constant first.

        `readers` are outputs of those that are to read it divided. Empty if a scale cannot go there.
        """
        passed: list[_Site] = []
        while True:  # a loop: a path may be longer than calls can be nested
            node = self._only_producer(value, readers)
            if node is None:
                return []
            readers = {node.output[0]}
            match node.op_type:
                case "Identity" | "Relu":
                    value = node.input[0]
                    continue
                case "Transpose":
                    order = _attribute(node, "perm", ())
                    if not -len(order) <= axis < 0:
                        return []
                    value, axis = node.input[0], order[axis] - len(order)
                    continue
                case "Add" if axis == -1:
                    # Of a constant of one number a channel: it is divided, and so is the other input.
                    place = next((place for place in (0, 1) if self._checked([_Site(node, place, -1)], channels)), None)
                    if place is None:
                        return []
                    passed.insert(0, _Site(node, place, -1))
                    value = node.input[1 - place]
                    continue
            sites = self._ends(node, axis, channels)
            return [*sites, *passed] if sites else []

    def _only_producer(self, value: str, readers: Collection[str]) -> NodeProto | None:
        """The ONNX node that makes the value, if nothing but the `readers` reads it."""
        others = (node for node in self._readers.get(value, []) if node.op_type != "Shape")
        if value in self._outputs or not all(node.output[0] in readers for node in others):
            return None
        node = self._producers.get(value)
        return node if node is not None and node.domain in ("", "ai.onnx") else None

    def _ends(self, node: NodeProto, axis: int, channels: int) -> list[_Site]:
        """The constants of a node at which the way ends: they hold one number a channel."""
        match node.op_type:
            case "Conv":
                sites = [_Site(node, place, 0) for place in (1, 2) if place < len(node.input)]
                weight = self._constant(node.input[1])
                return self._checked(sites, channels) if weight and axis == 1 - len(weight.dims) else []
            case "LayerNormalization" if axis == -1 and _attribute(node, "axis", -1) == -1:
                return self._checked([_Site(node, place, -1) for place in range(1, len(node.input))], channels)
            case "MatMul" if axis == -1:
                return self._checked([_Site(node, 1, -1)], channels)
            case "Mul" if axis == -1:
                found = (self._checked([_Site(node, place, -1)], channels) for place in (0, 1))
                return next((sites for sites in found if sites), [])
        return []

    def _checked(self, sites: list[_Site], channels: int) -> list[_Site]:
        for site in sites:
            tensor = self._constant(site.node.input[site.place])
            if tensor is None or tensor.data_type != TensorProto.FLOAT or not tensor.dims:
                return []
            if tensor.dims[site.axis] != channels:
                return []
        return sites

    def _constant(self, name: str) -> TensorProto | None:
        if name in self._constants:
            return self._constants[name]
        node = self._producers.get(name)
        if node is None or node.op_type != "Constant" or node.attribute[0].name != "value":
            return None
        value: TensorProto = node.attribute[0].t
        return value

    def multiply(self, site: _Site, factor: NDArray[np.float32]) -> None:
        tensor = self._own_constant(site.node, site.place)
        axes = self.factors.setdefault(tensor.name, {})
        axis = site.axis % len(tensor.dims)
        axes[axis] = factor * axes.get(axis, np.float32(1))

    def _own_constant(self, node: NodeProto, place: int) -> TensorProto:
        """The constant that a node reads as an initializer that nothing else reads; if need be, a copy."""
        name = node.input[place]
        alone = len(self._readers[name]) == 1 and list(node.input).count(name) == 1 and name not in self._outputs
        if alone and name in self._constants:
            return self._constants[name]
        values = self._constant(name)
        assert values is not None
        copy = self._add_initializer(values, f"{name}/{node.output[0]}")
        self._readers[name] = [reader for reader in self._readers[name] if reader.output[0] != node.output[0]]
        self._readers[copy.name] = [node]
        node.input[place] = copy.name
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
        readers = {node.output[0] for node in one.readers}
        self._muls.update(dict.fromkeys(readers, mul))
        for node in one.readers:
            node.input[0] = smoothed
        self._readers[smoothed] = list(one.readers)
        self._readers[one.value] = [node for node in self._readers[one.value] if node.output[0] not in readers] + [mul]
        self._producers[smoothed] = mul

    def finish(self) -> None:
        """Put the Muls in front of their first readers, and leave out the Constants that nothing reads any more."""
        nodes: list[NodeProto] = []
        placed: set[str] = set()
        for node in self._graph.node:
            mul = self._muls.get(node.output[0])
            if mul is not None and mul.name not in placed:
                nodes.append(mul)
                placed.add(mul.name)
            output = node.output[0]
            if not (node.op_type == "Constant" and self._readers.get(output) == [] and output not in self._outputs):
                nodes.append(node)
        copies = [_copy(node) for node in nodes]
        del self._graph.node[:]
        self._graph.node.extend(copies)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
