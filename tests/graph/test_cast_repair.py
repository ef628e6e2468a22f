"""Models that a converter left half-converted load again, compute what they did in fp32, and count exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, parser
from onnx.reference import ReferenceEvaluator

from artifacts.errors import StepError
from artifacts.graph.cast_repair import Repairs, repair_casts
from artifacts.graph.nodes import subgraphs
from artifacts.graph.tensor_content import TensorReader
from artifacts.steps import convert_fp16
from cast_cases import CASES, COUNTS, HEADER, LENGTHS, LOOP, MASK, TABLE, Feeds, X

Convert = Callable[..., ModelProto]
Runner = Callable[[ModelProto, Feeds], list[np.ndarray[Any, Any]]]


@pytest.fixture(params=["streaming", "onnxconverter-common"])
def convert(request: pytest.FixtureRequest, tmp_path: Path) -> Convert:
    """Converts a model in text to fp16, with either converter."""

    def convert(text: str, **params: Any) -> ModelProto:
        source, target = tmp_path / "fp32", tmp_path / "fp16"
        source.mkdir()
        target.mkdir()
        onnx.save(named(parser.parse_model(HEADER + text)), source / "model.onnx")
        convert_fp16.run(target, convert_fp16.Params(converter=request.param, **params), model=source)
        return onnx.load(target / "model.onnx")

    return convert


def named(model: ModelProto) -> ModelProto:
    """Nodes of the text form have no names; converters tell nodes by them."""
    for node in all_nodes(model.graph):
        node.name = f"make_{node.output[0]}"
    return model


def all_nodes(graph: onnx.GraphProto) -> list[NodeProto]:
    return [n for node in graph.node for n in (node, *(inner for body in subgraphs(node) for inner in all_nodes(body)))]


def repair(model: ModelProto) -> Repairs:
    with TensorReader(Path("model.onnx")) as reader:
        return repair_casts(model, reader)


def types_of_inputs(model: ModelProto) -> dict[str, int]:
    return {given.name: given.type.tensor_type.elem_type for given in model.graph.input}


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


@pytest.mark.parametrize("runner", [run, run_literally])
@pytest.mark.parametrize("case", CASES)
def test_a_repaired_model_computes_what_it_did_in_fp32(convert: Convert, case: str, runner: Runner) -> None:
    text, feeds = CASES[case]
    model = convert(text)
    repair(model)
    for found, expected in zip(runner(model, feeds), run(parser.parse_model(HEADER + text), feeds), strict=True):
        assert found.dtype == expected.dtype
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
        else:
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("case", CASES)
def test_a_repaired_model_needs_no_second_repair(convert: Convert, case: str) -> None:
    model = convert(CASES[case][0])
    repair(model)
    once = model.SerializeToString(deterministic=True)
    again = repair(model)
    assert model.SerializeToString(deterministic=True) == once
    assert (again.casts_changed, again.casts_inserted, again.casts_removed, again.constants_widened) == (0, 0, 0, 0)


@pytest.mark.parametrize("case", ["mask", "lengths", "positions", "then", "loop", "scan"])
def test_unrepaired_models_do_not_load(convert: Convert, case: str) -> None:
    model = convert(CASES[case][0])
    with pytest.raises(Exception, match=r"bound to different types|does not match expected type|type mismatch"):
        onnxruntime.InferenceSession(model.SerializeToString())


def test_a_cast_moves_up_through_ops_that_only_move_numbers(convert: Convert) -> None:
    model = convert(MASK)
    before = len(model.graph.node)
    assert repair(model) == Repairs(casts_changed=1, casts_kept=1)
    assert len(model.graph.node) == before


def test_a_cast_with_consumers_of_both_types_gets_a_second_cast_that_rounds_once(convert: Convert) -> None:
    text = """(float[B] x, int64[B] n) => (float[B] y, int64[B] m) <float[1] w = {0.5}> {
      length = Cast<to=1>(n)
      m = Cast<to=7>(length)
      scaled = Mul(x, w)
      y = Add(scaled, length)
    }"""
    model = convert(text)
    repairs = repair(model)
    assert (repairs.casts_changed, repairs.casts_inserted) == (0, 1)
    siblings = [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] == "n"]
    assert sorted(helper.get_node_attr_value(node, "to") for node in siblings) == [
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
    ]


def test_a_model_whose_casts_were_all_flipped_counts_exactly_again(convert: Convert) -> None:
    text, feeds = CASES["lengths"]
    model = convert(text)
    for node in model.graph.node:
        if node.op_type == "Cast" and node.output[0] not in ("y", "m"):
            to = next(attribute for attribute in node.attribute if attribute.name == "to")
            to.i = TensorProto.FLOAT16 if to.i == TensorProto.FLOAT else to.i
    exact = (COUNTS + 1) // 2
    assert not np.array_equal(run_literally(model, feeds)[1], exact)
    repair(model)
    np.testing.assert_array_equal(run_literally(model, feeds)[1], exact)


def test_fp16_inputs_become_fp32_and_outputs_keep_their_type(convert: Convert) -> None:
    text, feeds = CASES["lengths"]
    model = convert(text, keep_io_types=False)
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16
    assert repair(model).inputs_restored == 1
    assert [given.type.tensor_type.elem_type for given in model.graph.input] == [TensorProto.FLOAT, TensorProto.INT64]
    y, m = run(model, feeds)
    assert y.dtype == np.float16
    expected = run(parser.parse_model(HEADER + text), feeds)
    np.testing.assert_allclose(y, expected[0], rtol=2e-3)
    np.testing.assert_array_equal(m, expected[1])


def test_random_numbers_are_drawn_in_fp32(convert: Convert) -> None:
    text = """(float[2,4] x) => (float[2,4] y) <float[4] w = {1, 2, 3, 4}> {
      noise = RandomNormal<shape = [2, 4], dtype = 1, scale = 0.001>()
      scaled = Mul(x, w)
      y = Add(scaled, noise)
    }"""
    model = convert(text)
    repair(model)
    np.testing.assert_allclose(run(model, {"x": X})[0], X * [1, 2, 3, 4], atol=0.02)


def test_an_initializer_that_is_listed_among_the_inputs_is_none() -> None:
    model = parser.parse_model(HEADER + "(float16[2] x, float16[2] w) => (float16[2] y) { y = Mul(x, w) }")
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT16, [2], [2, 3]))
    assert repair(model).inputs_restored == 1
    assert run(model, {"x": np.array([1, 1], np.float32)})[0].tolist() == [2, 3]


def test_a_listed_initializer_is_declared_as_it_becomes(convert: Convert) -> None:
    text = """(float[2] x, int64[2] n, float[1] two, float[2] w) => (float[2] y, int64[2] m) <float[1] two = {2}> {
      length = Cast<to=1>(n)
      half = Div(length, two)
      m = Cast<to=7>(half)
      y = Mul(x, w)
    }"""
    model = convert(text.replace("= {2}>", "= {2}, float[2] w = {2, 3}>"))
    assert repair(model).constants_widened == 1
    assert types_of_inputs(model)["two"] == TensorProto.FLOAT
    y, m = run(model, {"x": np.array([1, 1], np.float32), "n": np.array([5002, 8])})
    assert (y.tolist(), m.tolist()) == ([2, 3], [2501, 4])


def test_a_listed_initializer_that_is_an_output_of_another_type_is_renamed_with_its_listing() -> None:
    model = parser.parse_model(HEADER + "(float16[2] x, float16[2] w) => (float16[2] y, float[2] w) { y = Mul(x, w) }")
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT16, [2], [2, 3]))
    repair(model)
    assert list(types_of_inputs(model)) == ["x", "w_fp16"]
    y, w = run(model, {"x": np.array([1, 1], np.float32)})
    assert (y.tolist(), w.tolist(), w.dtype) == ([2, 3], [2, 3], np.float32)


def test_an_input_that_is_an_fp16_output_is_refused(convert: Convert) -> None:
    text = "(float[2] x) => (float[2] y, float[2] x) <float[2] w = {2, 3}> { y = Mul(x, w) }"
    with pytest.raises(StepError, match="value 'x': is an fp32 input and an fp16 output of the model"):
        repair(convert(text, keep_io_types=False))


def test_the_fix_of_that_error_is_repaired(convert: Convert) -> None:
    model = convert("(float[2] x) => (float[2] y, float[2] x) <float[2] w = {2, 3}> { y = Mul(x, w) }")
    repair(model)
    y, x = run(model, {"x": np.array([1, 5], np.float32)})
    assert (y.tolist(), x.tolist()) == ([2, 15], [1, 5])


def test_values_that_contradict_the_dims_are_refused() -> None:
    text = "(float[2] x) => (float16[2] y) { a = Exp(x) y = Mul(a, k) }"
    model = named(parser.parse_model(HEADER + text))
    model.graph.initializer.append(TensorProto(name="k", data_type=TensorProto.FLOAT16, dims=[1], raw_data=bytes(4)))
    with pytest.raises(StepError, match=r"tensor 'k': has 4 bytes, dims \[1\] need 2"):
        repair(model)


def test_an_output_of_another_type_than_declared_gets_a_cast_under_its_name() -> None:
    model = named(parser.parse_model(HEADER + "(float[2] x) => (float[2] y, float[2] z) { y = Exp(x) z = Neg(y) }"))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    assert repair(model).casts_inserted == 1
    y, z = run(model, {"x": np.array([0.1, 0.2], np.float32)})
    assert (y.dtype, z.dtype) == (np.float16, np.float32)
    np.testing.assert_allclose(z, -np.exp([0.1, 0.2]), rtol=1e-6)  # not by way of fp16


def test_casts_there_and_back_are_removed() -> None:
    text = """(float16[2] x) => (float16[2] y) {
      wide = Cast<to=1>(x)
      w = Constant<value = float16[2] {15360, 16384}>()
      y = Mul(wide, w)
    }"""
    model = parser.parse_model(HEADER + text)
    repairs = repair(model)
    assert (repairs.casts_removed, repairs.casts_inserted) == (1, 1)
    (y,) = run(model, {"x": np.array([3, 5], np.float32)})
    assert y.tolist() == [3, 10]


def test_no_declared_type_of_an_inner_value_survives(convert: Convert) -> None:
    model = convert(LENGTHS)
    model.graph.value_info.append(helper.make_tensor_value_info("scaled", TensorProto.FLOAT, [None, 4]))
    repair(model)
    assert not model.graph.value_info
    run(model, CASES["lengths"][1])


ROUNDED = {
    "make_two": LENGTHS.replace("float[1] {2}", "float[1] {2.2}"),
    "make_half": LENGTHS.replace("  two = Constant<value = float[1] {2}>()\n", "").replace(
        "<float[4]", "<float[1] two = {2.2}, float[4]"
    ),
}
"""A constant that needs more bits than fp16 has, as a Constant and as an initializer; and the node to block for it."""


@pytest.mark.parametrize("node", ROUNDED)
def test_a_constant_that_fp16_rounded_may_not_decide_a_length(convert: Convert, node: str) -> None:
    with pytest.raises(StepError, match=r"'two': 2.19\d* decides an integer and may have been rounded") as caught:
        repair(convert(ROUNDED[node]))
    assert caught.value.fix == f"add '{node}' to node_block_list of convert_fp16"


@pytest.mark.parametrize("node", ROUNDED)
def test_the_fix_of_that_error_makes_lengths_exact(convert: Convert, node: str) -> None:
    model = convert(ROUNDED[node], node_block_list=(node,))
    repair(model)
    feeds = CASES["lengths"][1]
    expected = run(parser.parse_model(HEADER + ROUNDED[node]), feeds)[1]
    np.testing.assert_array_equal(run(model, feeds)[1], expected)
    np.testing.assert_array_equal(run_literally(model, feeds)[1], expected)


def test_a_rounded_constant_is_found_in_a_loop_too(convert: Convert) -> None:
    with pytest.raises(StepError, match=r"'step': 0\.0999\d* decides an integer"):
        repair(convert(LOOP.replace("float {1}", "float {0.1}")))


def test_of_a_table_only_the_selected_entries_are_cast(convert: Convert) -> None:
    text = TABLE.replace("y = Add(x, rows)", "y = Mul(rows, v)").replace(
        "<float[3,4]", "<float[4] v = {1, 2, 3, 4}, float[3,4]"
    )
    model = convert(text.replace("(float[B,4] x, ", "("), node_block_list=("make_y",))
    repair(model)
    assert [tensor.data_type for tensor in model.graph.initializer] == [TensorProto.FLOAT, TensorProto.FLOAT16]
    assert "table" in next(node for node in model.graph.node if node.op_type == "Gather").input
    np.testing.assert_allclose(run(model, {"ids": np.array([2])})[0], [[8, 18, 30, 44]])
