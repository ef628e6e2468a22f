"""Small models in ONNX's text form, each with a way in which a conversion to fp16 goes wrong, and how to run them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, parser
from onnx.reference import ReferenceEvaluator

from artifacts.graph.nodes import subgraphs

HEADER = '<ir_version: 8, opset_import: ["" : 17]> g '
Feeds = dict[str, np.ndarray[Any, Any]]

MASK = """(float[B,4] x, bool[B] keep) => (float[B,4] y) <float[4] w = {1, 2, 3, 4}> {
  mask = Cast<to=1>(keep)
  axes = Constant<value = int64[1] {1}>()
  column = Unsqueeze(mask, axes)
  scaled = Mul(x, w)
  y = Mul(scaled, column)
}"""

LENGTHS = """(float[B,4] x, int64[B] n) => (float[B,4] y, int64[B] m) <float[4] w = {1, 2, 3, 4}> {
  length = Cast<to=1>(n)
  one = Constant<value = float[1] {1}>()
  two = Constant<value = float[1] {2}>()
  more = Add(length, one)
  half = Div(more, two)
  m = Cast<to=7>(half)
  whole = Cast<to=1>(m)
  axes = Constant<value = int64[1] {1}>()
  column = Unsqueeze(whole, axes)
  scaled = Mul(x, w)
  y = Div(scaled, column)
}"""

POSITIONS = """(float[B,4] x, int64[B] n) => (float[B,4] y)
<float[4] w = {1, 2, 3, 4}, float[4] rates = {1, 0.5, 0.25, 2}> {
  position = Cast<to=1>(n)
  axes = Constant<value = int64[1] {1}>()
  column = Unsqueeze(position, axes)
  angle = Mul(column, rates)
  wave = Sin(angle)
  scaled = Mul(x, w)
  y = Add(scaled, wave)
}"""

SUM_OF_MASK = """(float[B,T] x, bool[B,T] keep) => (float[B,T] y, int64[B,one] m) <float[1] w = {1.5}> {
  mask = Cast<to=1>(keep)
  axes = Constant<value = int64[1] {1}>()
  total = ReduceSum(mask, axes)
  m = Cast<to=7>(total)
  scaled = Mul(x, w)
  y = Mul(scaled, mask)
}"""

FILLED = """(float[B,4] x) => (float[B,4] y) <float[4] w = {1, 2, 3, 4}> {
  shape = Shape(x)
  zeros = ConstantOfShape(shape)
  scaled = Mul(x, w)
  y = Sub(zeros, scaled)
}"""

BRANCHES = """(float[B,4] x, int64[B] n, bool yes) => (float[B,4] y) <float[4] w = {1, 2, 3, 4}> {
  scaled = Mul(x, w)
  count = Cast<to=1>(n)
  y = If (yes) <
    then_branch = t () => (float[B,4] u) {
      axes = Constant<value = int64[1] {1}>()
      column = Unsqueeze(count, axes)
      u = Add(scaled, column)
    },
    else_branch = e () => (float[B,4] v) { v = Neg(scaled) }
  >
}"""

LOOP = """(float[B,4] x, int64 trips) => (float[B,4] y, int64 m) <float[4] w = {1, 2, 3, 4}> {
  scaled = Mul(x, w)
  yes = Constant<value = bool {1}>()
  start = Constant<value = int64 {2047}>()
  from = Cast<to=1>(start)
  y, last = Loop (trips, yes, scaled, from) <
    body = b (int64 i, bool go, float[B,4] state, float counter) => (bool on, float[B,4] next, float up) {
      on = Identity(go)
      step = Constant<value = float {1}>()
      up = Add(counter, step)
      index = Cast<to=1>(i)
      next = Add(state, index)
    }
  >
  m = Cast<to=7>(last)
}"""

SCAN = """(float[4] x, float[T,4] xs) => (float[4] y, float[T,4] ys) <float[4] w = {1, 2, 3, 4}> {
  first = Mul(x, w)
  y, ys = Scan <num_scan_inputs = 1, body = b (float[4] state, float[4] row) => (float[4] next, float[4] out) {
    next = Add(state, row)
    positive = Cast<to=9>(row)
    kept = Cast<to=1>(positive)
    out = Mul(next, kept)
  }> (first, xs)
}"""

TABLE = """(float[B,4] x, int64[B] ids) => (float[B,4] y) <float[3,4] table = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}> {
  rows = Gather(table, ids)
  y = Add(x, rows)
}"""

X = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
COUNTS = np.array([4097, 6001])

CASES: dict[str, tuple[str, Feeds]] = {
    "mask": (MASK, {"x": X, "keep": np.array([True, False])}),
    "lengths": (LENGTHS, {"x": X, "n": COUNTS}),
    "positions": (POSITIONS, {"x": X, "n": COUNTS}),
    "sum of a mask": (SUM_OF_MASK, {"x": np.ones((1, 5000), np.float32), "keep": np.arange(5000)[None] < 4099}),
    "fill value": (FILLED, {"x": X}),
    "then": (BRANCHES, {"x": X, "n": np.array([3, 5]), "yes": np.array(True)}),
    "else": (BRANCHES, {"x": X, "n": np.array([3, 5]), "yes": np.array(False)}),
    "loop": (LOOP, {"x": X, "trips": np.array(4)}),
    "scan": (SCAN, {"x": X[0], "xs": X}),
    "table": (TABLE, {"x": X, "ids": np.array([2, 0])}),
}

ROUNDED = {
    "make_two": LENGTHS.replace("float[1] {2}", "float[1] {2.2}"),
    "make_half": LENGTHS.replace("  two = Constant<value = float[1] {2}>()\n", "").replace(
        "<float[4]", "<float[1] two = {2.2}, float[4]"
    ),
}
"""A constant that needs more bits than fp16 has, as a Constant and as an initializer; and the node to block for it."""


def model_of(text: str) -> ModelProto:
    """The model of a text. Nodes of the text form have no names; converters tell nodes by them."""
    model = parser.parse_model(HEADER + text)
    for node in all_nodes(model.graph):
        node.name = f"make_{node.output[0]}"
    return model


def all_nodes(graph: onnx.GraphProto) -> list[NodeProto]:
    return [n for node in graph.node for n in (node, *(inner for body in subgraphs(node) for inner in all_nodes(body)))]


def run(model: ModelProto, feeds: Feeds) -> list[np.ndarray[Any, Any]]:
    """What a consumer gets: ONNX Runtime, which may compute fp16 nodes in fp32 on a CPU."""
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return list(session.run(None, feeds))


def run_literally(model: ModelProto, feeds: Feeds) -> list[np.ndarray[Any, Any]]:
    """What the file says: each node in its own types, as on a device that has them."""
    return list(ReferenceEvaluator(model).run(None, feeds))


def assert_computes_the_same(found: list[np.ndarray[Any, Any]], expected: list[np.ndarray[Any, Any]]) -> None:
    """Floats are near, in the type of fp32; integers are equal."""
    for output, wanted in zip(found, expected, strict=True):
        assert output.dtype == wanted.dtype
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(output, wanted, rtol=2e-3, atol=2e-3)
        else:
            np.testing.assert_array_equal(output, wanted)
