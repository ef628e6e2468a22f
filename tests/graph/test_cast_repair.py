"""Models that a converter left half-converted load again, compute what they did in fp32, and count exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper

from artifacts.errors import StepError
from artifacts.graph.cast_repair import Repairs, agreed_type, repair_casts
from artifacts.graph.tensor_content import TensorReader
from artifacts.graph.value_types import FLOAT, FLOAT16, Kind, Value, tensor_type
from artifacts.steps import convert_fp16
from cast_cases import (
    CASES,
    COUNTS,
    LENGTHS,
    LOOP,
    MASK,
    ROUNDED,
    TABLE,
    Feeds,
    X,
    assert_computes_the_same,
    model_of,
    run,
    run_literally,
)

Convert = Callable[..., ModelProto]
Runner = Callable[[ModelProto, Feeds], list[np.ndarray[Any, Any]]]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Converts a model in text to fp16 by onnxconverter-common, which leaves its Casts as they are."""

    def convert(text: str, **params: Any) -> ModelProto:
        source, target = tmp_path / "fp32", tmp_path / "fp16"
        source.mkdir()
        target.mkdir()
        onnx.save(model_of(text), source / "model.onnx")
        params = {"converter": "onnxconverter-common", **params}
        convert_fp16.run(target, convert_fp16.Params(**params), model=source)
        return onnx.load(target / "model.onnx")

    return convert


def value(kind: Kind, elem_type: int, size: int | None = None) -> Value:
    tensor = None if size is None else TensorProto(data_type=elem_type, dims=[size])
    return Value("v", tensor_type(elem_type), kind, GraphProto(), None, tensor)


SIGNAL16, SIGNAL32 = value(Kind.FEATURE, FLOAT16), value(Kind.FEATURE, FLOAT)
COUNT16, COUNT32 = value(Kind.LENGTH, FLOAT16), value(Kind.LENGTH, FLOAT)
WEIGHT16, WEIGHT32 = value(Kind.CONSTANT, FLOAT16, 4), value(Kind.CONSTANT, FLOAT, 4)
NUMBER16, NUMBER32 = value(Kind.CONSTANT, FLOAT16, 1), value(Kind.CONSTANT, FLOAT, 1)


@pytest.mark.parametrize(
    ("values", "agreed"),
    [
        ([SIGNAL16, WEIGHT16], FLOAT16),
        ([SIGNAL32, WEIGHT16], FLOAT16),
        ([SIGNAL16, WEIGHT32], FLOAT),
        ([SIGNAL32, NUMBER16], FLOAT),
        ([SIGNAL16, NUMBER32], FLOAT16),
        ([SIGNAL16, SIGNAL32], FLOAT16),
        ([SIGNAL32, SIGNAL32], FLOAT),
        ([SIGNAL16, COUNT32], FLOAT16),
        ([SIGNAL32, COUNT16], FLOAT),
        ([COUNT16, NUMBER16], FLOAT),
        ([COUNT32, WEIGHT16], FLOAT),
        ([WEIGHT16, NUMBER16], FLOAT16),
        ([WEIGHT16, NUMBER32], FLOAT),
    ],
)
def test_weights_decide_then_features_then_counts(values: list[Value], agreed: int) -> None:
    assert agreed_type(values) == agreed
    assert agreed_type(values[::-1]) == agreed


def repair(model: ModelProto) -> Repairs:
    with TensorReader(Path("model.onnx")) as reader:
        return repair_casts(model, reader)


def types_of_inputs(model: ModelProto) -> dict[str, int]:
    return {given.name: given.type.tensor_type.elem_type for given in model.graph.input}


@pytest.mark.parametrize("runner", [run, run_literally])
@pytest.mark.parametrize("case", CASES)
def test_a_repaired_model_computes_what_it_did_in_fp32(convert: Convert, case: str, runner: Runner) -> None:
    text, feeds = CASES[case]
    model = convert(text)
    repair(model)
    assert_computes_the_same(runner(model, feeds), run(model_of(text), feeds))


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
    expected = run(model_of(text), feeds)
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
    model = model_of("(float16[2] x, float16[2] w) => (float16[2] y) { y = Mul(x, w) }")
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


def test_an_input_that_is_an_fp16_output_is_refused(convert: Convert) -> None:
    text = "(float[2] x) => (float[2] y, float[2] x) <float[2] w = {2, 3}> { y = Mul(x, w) }"
    with pytest.raises(StepError, match="value 'x': is an fp32 input and an fp16 output of the model"):
        repair(convert(text, keep_io_types=False))


def test_the_fix_of_that_error_is_repaired(convert: Convert) -> None:
    model = convert("(float[2] x) => (float[2] y, float[2] x) <float[2] w = {2, 3}> { y = Mul(x, w) }")
    repair(model)
    y, x = run(model, {"x": np.array([1, 5], np.float32)})
    assert (y.tolist(), x.tolist()) == ([2, 15], [1, 5])


def test_no_declared_type_of_an_inner_value_survives(convert: Convert) -> None:
    model = convert(LENGTHS)
    model.graph.value_info.append(helper.make_tensor_value_info("scaled", TensorProto.FLOAT, [None, 4]))
    repair(model)
    assert not model.graph.value_info
    run(model, CASES["lengths"][1])


@pytest.mark.parametrize("node", ROUNDED)
def test_a_constant_that_fp16_rounded_may_not_decide_a_length(convert: Convert, node: str) -> None:
    with pytest.raises(StepError, match=r"'two': 2.19\d* decides an integer and may have been rounded") as caught:
        repair(convert(ROUNDED[node]))
    assert caught.value.fix == f"add '{node}' to keep_fp32_nodes of convert_fp16"


@pytest.mark.parametrize("node", ROUNDED)
def test_the_fix_of_that_error_makes_lengths_exact(convert: Convert, node: str) -> None:
    model = convert(ROUNDED[node], keep_fp32_nodes=(node,))
    repair(model)
    feeds = CASES["lengths"][1]
    expected = run(model_of(ROUNDED[node]), feeds)[1]
    np.testing.assert_array_equal(run(model, feeds)[1], expected)
    np.testing.assert_array_equal(run_literally(model, feeds)[1], expected)


def test_a_rounded_constant_is_found_in_a_loop_too(convert: Convert) -> None:
    with pytest.raises(StepError, match=r"'step': 0\.0999\d* decides an integer"):
        repair(convert(LOOP.replace("float {1}", "float {0.1}")))


def test_of_a_table_only_the_selected_entries_are_cast(convert: Convert) -> None:
    text = TABLE.replace("y = Add(x, rows)", "y = Mul(rows, v)").replace(
        "<float[3,4]", "<float[4] v = {1, 2, 3, 4}, float[3,4]"
    )
    model = convert(text.replace("(float[B,4] x, ", "("), keep_fp32_nodes=("make_y",))
    repair(model)
    assert [tensor.data_type for tensor in model.graph.initializer] == [TensorProto.FLOAT, TensorProto.FLOAT16]
    assert "table" in next(node for node in model.graph.node if node.op_type == "Gather").input
    np.testing.assert_allclose(run(model, {"ids": np.array([2])})[0], [[8, 18, 30, 44]])
