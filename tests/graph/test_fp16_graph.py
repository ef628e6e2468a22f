"""A graph is rewritten to float16: it loads as it is, and computes what it did."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, numpy_helper, parser

from artifacts.errors import StepError
from artifacts.graph.fp16_graph import Fp16Changes, Fp16Options, rewrite_to_fp16
from artifacts.graph.fp16_values import Fp16Rounding
from artifacts.graph.type_changes import TypeChanges
from cast_cases import run_literally

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
Array = npt.NDArray[Any]


def model_of(text: str, **weights: Array) -> ModelProto:
    model = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>\n' + text)
    for node in model.graph.node:
        node.name = node.output[0]
    for name, values in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def rewrite(
    model: ModelProto, *blocked_ops: str, nodes: tuple[str, ...] = (), keep_io_types: bool = True
) -> Fp16Changes:
    options = Fp16Options(frozenset(blocked_ops), frozenset(nodes), keep_io_types)
    return rewrite_to_fp16(model, options, Fp16Rounding(1e-7, 1e4))


def run(model: ModelProto, **inputs: Array) -> list[Array]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def casts(model: ModelProto) -> list[str]:
    return [f"{n.input[0]} -> {n.output[0]}" for n in model.graph.node if n.op_type == "Cast"]


def types(model: ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    infos = (*graph.input, *graph.output, *graph.value_info)
    return {info.name: info.type.tensor_type.elem_type for info in infos} | {
        tensor.name: tensor.data_type for tensor in model.graph.initializer
    }


X = np.linspace(-2, 2, 8, dtype=np.float32)
CHAIN = "g (float[8] x) => (float[8] y) <float[8] middle> { middle = Mul(x, w)  y = Add(middle, v) }"


def chain() -> ModelProto:
    return model_of(CHAIN, w=X + 3, v=X)


def test_inputs_and_outputs_stay_float32_behind_casts() -> None:
    model = chain()
    expected = run(model, x=X)[0]
    assert rewrite(model) == Fp16Changes(2, TypeChanges(casts_inserted=2))
    assert casts(model) == ["x -> x_fp16", "y_fp16 -> y"]
    assert types(model) == {
        "x": FLOAT, "y": FLOAT, "x_fp16": FLOAT16, "y_fp16": FLOAT16, "middle": FLOAT16, "w": FLOAT16, "v": FLOAT16,
    }  # fmt: skip
    found = run(model, x=X)[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_inputs_and_outputs_become_float16_where_that_is_wanted() -> None:
    model = chain()
    assert rewrite(model, keep_io_types=False) == Fp16Changes(2, TypeChanges())
    (found,) = run(model, x=X.astype(np.float16))
    assert found.dtype == np.float16


@pytest.mark.parametrize("keep_io_types", [True, False])
@pytest.mark.parametrize("block", [{"blocked_ops": ["Mul"]}, {"nodes": ("middle",)}])
def test_a_blocked_node_computes_in_float32_with_its_weights(block: dict[str, Any], keep_io_types: bool) -> None:
    model = chain()
    changes = rewrite(model, *block.get("blocked_ops", ()), nodes=block.get("nodes", ()), keep_io_types=keep_io_types)
    assert changes.tensors == 1
    assert types(model)["w"] == FLOAT
    assert types(model)["v"] == FLOAT16
    ends = ["y_fp16 -> y"] if keep_io_types else []
    starts = [] if keep_io_types else ["x -> x_fp32"]
    assert casts(model) == [*starts, "middle -> middle_fp16", *ends]
    run(model, x=X if keep_io_types else X.astype(np.float16))


def test_neighbours_on_the_block_list_have_no_casts_between_them() -> None:
    model = model_of("g (float[8] x) => (float[8] y) { a = Neg(x)  b = Exp(a)  c = Log(b)  y = Mul(c, w) }", w=X)
    rewrite(model, "Exp", "Log")
    assert casts(model) == ["x -> x_fp16", "a -> a_fp32", "c -> c_fp16", "y_fp16 -> y"]
    run(model, x=X)


def test_values_that_no_one_declared_are_cast_all_the_same() -> None:
    """onnxconverter-common casts around a blocked node only what has a value_info."""
    model = model_of("g (float[8] x) => (float[8] y) { a = Neg(x)  b = Max(a, w)  y = Mul(b, w2) }", w=X, w2=X)
    assert not model.graph.value_info
    rewrite(model, "Max")
    run(model, x=X)


def test_a_tensor_for_blocked_and_other_consumers_stays_float32_and_the_others_get_a_rounded_copy() -> None:
    model = model_of("g (float[8] x) => (float[8] y) { a = Mul(x, w)  b = Max(a, w)  y = Add(b, v) }", w=X, v=X)
    rewrite(model, "Max")
    assert (types(model)["w"], types(model)["w_fp16"]) == (FLOAT, FLOAT16)
    assert not any("w" in cast for cast in casts(model))
    run(model, x=X)


def test_a_small_number_that_is_shared_with_a_blocked_node_does_not_become_zero() -> None:
    model = model_of("g (float[8] x) => (float[8] y) { a = Max(x, e)  b = Add(x, e)  y = Div(x, b) }")
    model.graph.initializer.append(numpy_helper.from_array(np.array(1e-9, np.float32), "e"))
    rewrite(model, "Max")
    zeros = {"x": np.zeros(8, np.float32)}
    np.testing.assert_array_equal(run_literally(model, zeros)[0], np.zeros(8, np.float32))


@pytest.mark.parametrize(
    "attribute", ["value = float[1] {2.5}", "value_float: float = 2.5", "value_floats: floats = [2.5]"]
)
@pytest.mark.parametrize(("blocked", "half"), [((), True), (("Mul",), False), (("Constant",), False)])
def test_constants_of_every_kind_take_the_type_that_their_consumers_need(
    attribute: str, blocked: tuple[str, ...], half: bool
) -> None:
    text = f"g (float[8] x) => (float[8] y) {{ k = Constant<{attribute}>()  a = Mul(x, k)  y = Add(a, w) }}"
    model = model_of(text, w=X)
    expected = run(model, x=X)[0]
    rewrite(model, *blocked)
    np.testing.assert_allclose(run(model, x=X)[0], expected, atol=1e-2)
    constant = next(node for node in model.graph.node if node.op_type == "Constant").attribute[0]
    assert (constant.t.data_type == FLOAT16) == half


def test_the_fill_value_of_an_op_is_float16_too() -> None:
    """ConstantOfShape makes float32 zeros unless told otherwise."""
    text = "g (float[8] x) => (float[8] y) { s = Shape(x)  z = ConstantOfShape(s)  a = Add(x, z)  y = Mul(a, w) }"
    model = model_of(text, w=X)
    rewrite(model)
    run(model, x=X)


@pytest.mark.parametrize("blocked", [(), ("Add",), ("Mul",)])
def test_an_output_of_the_model_that_is_read_inside_is_read_in_the_form_that_fits(blocked: tuple[str, ...]) -> None:
    model = model_of("g (float[8] x) => (float[8] y, float[8] z) { y = Mul(x, w)  z = Add(y, v) }", w=X, v=X)
    expected = run(model, x=X)
    rewrite(model, *blocked)
    for found, wanted in zip(run(model, x=X), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-2)


BRANCHES = """
g (float[8] x, bool c) => (float[8] y) {
  a = Mul(x, w)
  b = If(c) <
    then_branch = yes () => (float[8] t) { t = Add(a, x) },
    else_branch = no () => (float[8] e) { k = Constant<value = float[1] {0.5}>()  m = Max(a, k)  e = Mul(m, w) }
  >
  y = Add(b, v)
}
"""


@pytest.mark.parametrize("blocked", [(), ("Max",), ("Add",), ("If",), ("If", "Max", "Mul")])
@pytest.mark.parametrize("keep_io_types", [True, False])
def test_subgraphs_are_rewritten_with_the_outer_values_that_they_consume(
    blocked: tuple[str, ...], keep_io_types: bool
) -> None:
    expected = [run(model_of(BRANCHES, w=X, v=X), x=X, c=np.array(c))[0] for c in (True, False)]
    model = model_of(BRANCHES, w=X, v=X)
    rewrite(model, *blocked, keep_io_types=keep_io_types)
    for condition, wanted in zip((True, False), expected, strict=True):
        x = X if keep_io_types else X.astype(np.float16)
        found = run(model, x=x, c=np.array(condition))[0]
        assert found.dtype == (np.float32 if keep_io_types else np.float16)
        np.testing.assert_allclose(found, wanted, atol=2e-2)


LOOP = """
g (float[8] x, int64 n) => (float[8] y) {
  go = Constant<value = bool {1}>()
  last = Loop(n, go, x) <
    body = b (int64 i, bool on, float[8] state) => (bool still, float[8] next) {
      still = Identity(on)
      grown = Mul(state, w)
      next = Max(grown, x)
    }
  >
  y = Add(last, v)
}
"""


@pytest.mark.parametrize("blocked", [(), ("Max",), ("Mul",), ("Loop",)])
def test_the_state_of_a_loop_keeps_one_type(blocked: tuple[str, ...]) -> None:
    expected = run(model_of(LOOP, w=X, v=X), x=X, n=np.array(3))[0]
    model = model_of(LOOP, w=X, v=X)
    rewrite(model, *blocked)
    np.testing.assert_allclose(run(model, x=X, n=np.array(3))[0], expected, atol=5e-2)


@pytest.mark.parametrize("ir_version", [3, 8])
@pytest.mark.parametrize("keep_io_types", [True, False])
def test_an_initializer_that_is_listed_among_the_inputs_is_a_weight(ir_version: int, keep_io_types: bool) -> None:
    text = "g (float[8] x, float[8] w, float[8] v) => (float[8] y) { a = Mul(x, w)  b = Max(a, v)  y = Mul(b, w) }"
    model = model_of(text, w=X, v=X)
    model.ir_version, model.opset_import[0].version = ir_version, 11
    expected = run(model, x=X)[0]
    assert rewrite(model, "Max", keep_io_types=keep_io_types).tensors == 1
    assert [types(model)[name] for name in ("w", "v")] == [FLOAT16, FLOAT]
    assert {given.name: given.type.tensor_type.elem_type for given in model.graph.input} == {
        "x": FLOAT if keep_io_types else FLOAT16, "w": FLOAT16, "v": FLOAT,
    }  # fmt: skip
    found = run(model, x=X if keep_io_types else X.astype(np.float16))[0]
    np.testing.assert_allclose(found, expected, atol=2e-2)


@pytest.mark.parametrize("values", [{"raw_data": bytes(28)}, {"raw_data": bytes(36)}, {"float_data": [1.0] * 7}])
def test_values_that_contradict_the_dims_are_refused(values: dict[str, Any]) -> None:
    model = model_of("g (float[8] x) => (float[8] y) { y = Mul(x, w) }")
    model.graph.initializer.append(TensorProto(name="w", data_type=FLOAT, dims=[8], **values))
    with pytest.raises(StepError, match="tensor 'w': "):
        rewrite(model)


@pytest.mark.parametrize("op", ["Transpose", "Cast", "Constant", "ConstantOfShape"])
def test_a_blocked_node_keeps_its_type_though_its_consumers_need_another(op: str) -> None:
    text = """g (float[8] x, bool[8] on) => (float[8] y) {
      k = Constant<value = float[1] {0.5}>() s = Shape(x) z = ConstantOfShape<value = float[1] {0.25}>(s)
      m = Cast<to = 1>(on) e = Max(x, x) t = Transpose(e) a = Mul(t, w) b = Mul(a, m) c = Add(b, z) y = Mul(c, k) }"""
    model = model_of(text, w=X)
    expected = run(model, x=X, on=X > 0)[0]
    rewrite(model, op, "Max")
    (node,) = (node for node in model.graph.node if node.op_type == op and node.output[0] in "ktmz")
    assert types(model)[node.output[0]] == FLOAT
    np.testing.assert_allclose(run(model, x=X, on=X > 0)[0], expected, atol=1e-2)


def test_an_op_that_has_no_float16_stays_float32() -> None:
    """DequantizeLinear of opset 17 gives float32 only, and is on no block list."""
    text = "g (float[8] x, int8[8] q) => (float[8] y) { d = DequantizeLinear(q, s)  a = Mul(x, d)  y = Add(a, w) }"
    model = model_of(text, w=X, s=np.array(0.5, np.float32))
    feeds = {"x": X, "q": np.arange(8, dtype=np.int8)}
    expected = run(model, **feeds)[0]
    rewrite(model)
    np.testing.assert_allclose(run(model, **feeds)[0], expected, atol=1e-2)


def test_integers_and_their_nodes_are_left_alone() -> None:
    model = model_of("g (int64[8] n, float[8] x) => (int64[8] m, float[8] y) { m = Add(n, n)  y = Mul(x, w) }", w=X)
    rewrite(model, "Add")
    assert casts(model) == ["x -> x_fp16", "y_fp16 -> y"]


def test_external_tensors_change_their_type_and_keep_their_reference() -> None:
    model = chain()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="data")
    rewrite(model)
    assert tensor.data_type == FLOAT16
    assert [entry.value for entry in tensor.external_data] == ["data"]


def test_new_names_avoid_those_in_use() -> None:
    model = model_of("g (float[8] x, float[8] x_fp16) => (float[8] y) { a = Mul(x, w)  y = Add(a, x_fp16) }", w=X)
    rewrite(model)
    run(model, x=X, x_fp16=X)
