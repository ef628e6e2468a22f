from __future__ import annotations

from onnx import ModelProto, TensorProto, parser

from artifacts.graph.constants import constants_to_initializers, drop_unread

MODEL = """<ir_version: 8, opset_import: ["" : 17]> g (float[2] x, bool which) => (float[2] y, float[1] out)
<float[2] body_only = {1, 2}, float[2] unread = {3, 4}, float[1] out = {5}, float[2] kept = {6, 7}> {
  matrix = Constant<value = float[2] {8, 9}>()
  whole = Constant<value = int64[1] {1}>()
  z = Add(x, matrix)
  y = If(which) <
    then_branch = a () => (float[2] p) { p = Add(z, body_only) },
    else_branch = b () => (float[2] q) { q = Identity(z) }
  >
}"""


def model() -> ModelProto:
    return parser.parse_model(MODEL)


def test_wanted_constants_become_initializers_and_others_stay() -> None:
    graph = model().graph
    constants_to_initializers(graph, lambda value: value.data_type == TensorProto.FLOAT)
    assert [node.op_type for node in graph.node] == ["Constant", "Add", "If"]
    assert graph.initializer[-1].name == "matrix"
    assert list(graph.initializer[-1].float_data) == [8, 9]


def test_only_named_initializers_that_nothing_reads_are_dropped() -> None:
    graph = model().graph
    drop_unread(graph, ["body_only", "unread", "out"])
    assert [tensor.name for tensor in graph.initializer] == ["body_only", "out", "kept"]
