"""Where a graph that is rewritten to float16 counts, it counts exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.cast_repair import repair_casts
from artifacts.graph.fp16_graph import Fp16Changes, Fp16Options, rewrite_to_fp16
from artifacts.graph.fp16_values import Fp16Rounding
from artifacts.graph.tensor_content import TensorReader
from cast_cases import CASES, LOOP, ROUNDED, Feeds, X, assert_computes_the_same, model_of, run, run_literally


def rewrite(model: ModelProto) -> Fp16Changes:
    options = Fp16Options(frozenset(), frozenset(), keep_io_types=True)
    return rewrite_to_fp16(model, options, Fp16Rounding(1e-7, 1e4))


@pytest.mark.parametrize("runner", [run, run_literally])
@pytest.mark.parametrize("case", CASES)
def test_casts_of_the_model_fit_and_lengths_stay_exact(
    case: str, runner: Callable[[ModelProto, Feeds], list[np.ndarray[Any, Any]]]
) -> None:
    text, feeds = CASES[case]
    model = model_of(text)
    expected = run(model, feeds)
    rewrite(model)
    assert_computes_the_same(runner(model, feeds), expected)


@pytest.mark.parametrize("case", CASES)
def test_a_rewritten_model_needs_no_repair(case: str, tmp_path: Path) -> None:
    model = model_of(CASES[case][0])
    rewrite(model)
    once = model.SerializeToString(deterministic=True)
    with TensorReader(tmp_path / "model.onnx") as reader:
        repair_casts(model, reader)
    assert model.SerializeToString(deterministic=True) == once


@pytest.mark.parametrize(
    ("text", "case"),
    [*((text, "lengths") for text in ROUNDED.values()), (LOOP.replace("float {1}", "float {1.1}"), "loop")],
)
def test_a_constant_that_fp16_would_round_may_decide_a_length(text: str, case: str) -> None:
    model, feeds = model_of(text), CASES[case][1]
    expected = run(model, feeds)[1]
    rewrite(model)
    np.testing.assert_array_equal(run_literally(model, feeds)[1], expected)


COMPUTED_RATES = """(float[B,4] x, int64[B] n) => (float[B,4] y)
<float[4] w = {1, 2, 3, 4}, float[4] exponents = {-1.1, -2.2, -3.3, -4.4}> {
  position = Cast<to=1>(n)
  axes = Constant<value = int64[1] {1}>()
  column = Unsqueeze(position, axes)
  rates = Exp(exponents)
  angle = Mul(column, rates)
  wave = Sin(angle)
  scaled = Mul(x, w)
  y = Add(scaled, wave)
}"""


def test_what_positions_are_multiplied_with_stays_float32_wherever_it_comes_from() -> None:
    """A rate that is rounded to fp16 turns position 6001 by 0.6 radian."""
    model = model_of(COMPUTED_RATES)
    feeds = CASES["positions"][1]
    expected = run(model, feeds)
    assert rewrite(model).tensors == 1
    assert_computes_the_same(run_literally(model, feeds), expected)


def test_a_table_of_weights_is_projected_in_float16() -> None:
    """As NeMo's positions are: a table, cut by an integer, times a matrix. Neither comes from features."""
    text = """(float[B,2] x, int64[B] ids) => (float[B,2] y)
    <float[3,2] table = {0, 1, 2, 3, 4, 5}, float[2,2] matrix = {1, 0, 0, 1}> {
      rows = Gather(table, ids)
      projected = MatMul(rows, matrix)
      y = Add(x, projected)
    }"""
    model = model_of(text)
    rewrite(model)
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.FLOAT16}
    assert [node.output[0] for node in model.graph.node if node.op_type == "Cast"] == ["x_fp16", "y"]


EXACT = {
    "a constant": "n = Cast<to=7>(three)",
    "a product of constants": "p = Mul(big, hundredth)  n = Cast<to=7>(p)",
    "an entry of a table": "r = Gather(table, one)  n = Cast<to=7>(r)",
    "arithmetic on an entry": "r = Gather(table, one)  q = Mul(r, unit)  n = Cast<to=7>(q)",
    "a comparison": "r = Gather(table, one)  c = Greater(r, three_thousand)  n = Cast<to=7>(c)",
    "a power of a length": "l = Cast<to=1>(k)  q = Pow(l, exponent)  n = Cast<to=7>(q)",
    "a power by a length": "l = Cast<to=1>(seventeen)  q = Pow(two, l)  n = Cast<to=7>(q)",
    "a length like features": "l = CastLike(k, x)  n = Cast<to=7>(l)",
}
NUMBERS = {
    "three": 3001.0, "three_thousand": 3000.0, "big": 160000.0, "hundredth": 0.01, "unit": 1.0, "two": 2.0,
    "exponent": 1.1,
}  # fmt: skip


@pytest.mark.parametrize("case", EXACT)
def test_an_integer_is_that_of_float32_wherever_it_is_computed_from(case: str) -> None:
    nodes = EXACT[case]
    model = model_of(f"""(float[4] x, int64 one, int64 k, int64 seventeen) => (float[4] y, int64 n)
    <float[4] w = {{1, 2, 3, 4}}, float[3] table = {{1, 3001, 70000}}> {{ y = Mul(x, w)  {nodes} }}""")
    for name, number in NUMBERS.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), name))
    feeds = {"x": X[0], "one": np.array(1), "k": np.array(3001), "seventeen": np.array(17)}
    expected = run(model, feeds)[1]
    rewrite(model)
    assert run_literally(model, feeds)[1] == run(model, feeds)[1] == expected


def test_what_is_computed_from_constants_alone_meets_features_unrounded() -> None:
    model = model_of("""(float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}> {
      first = Constant<value_float = 3001.0>() last = Constant<value_float = 3005.0>()
      step = Constant<value_float = 1.0>()
      rate = Constant<value_float = 0.7>()
      positions = Range(first, last, step) angles = Mul(positions, rate) waves = Sin(angles)
      scaled = Mul(x, w) y = Add(scaled, waves)
    }""")
    feeds = {"x": X[0]}
    expected = run(model, feeds)
    rewrite(model)
    assert_computes_the_same(run_literally(model, feeds), expected)


def test_a_cast_that_ends_a_subgraph_stays_in_it() -> None:
    model = model_of("""(float[4] x, bool yes) => (float[4] y) <float[4] w = {1, 2, 3, 4}> {
      s = Mul(x, w)
      b = If (yes) < then_branch = t () => (float[4] u) { u = Cast<to=1>(s) },
                     else_branch = e () => (float[4] v) { v = Neg(s) } >
      y = Add(b, x)
    }""")
    feeds = {"x": X[0], "yes": np.array(True)}
    expected = run(model, feeds)
    rewrite(model)
    assert_computes_the_same(run(model, feeds), expected)


def test_a_chain_of_casts_to_an_output_and_a_blocked_node_is_whole() -> None:
    model = model_of("""(float[4] x) => (float[4] y, float[4] z) <float[4] w = {1, 2, 3, 4}> {
      s = Mul(x, w)  a = Cast<to=1>(s)  y = Cast<to=1>(a)  z = Exp(y)
    }""")
    expected = run(model, {"x": X[0]})
    options = Fp16Options(frozenset({"Exp"}), frozenset(), keep_io_types=False)
    rewrite_to_fp16(model, options, Fp16Rounding(1e-7, 1e4))
    found = run(model, {"x": X[0].astype(np.float16)})
    for output, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(output, wanted, rtol=1e-2, atol=1e-2)


def test_branches_that_do_not_fit_their_node_are_refused() -> None:
    model = model_of("""(float[4] x, bool yes) => (float[4] y) <float[4] w = {1, 2, 3, 4}> {
      y = If (yes) < then_branch = t () => (float[4] u) { u = Mul(x, w) },
                     else_branch = e () => (float[4] v) { v = Neg(x) } >
    }""")
    branch = model.graph.node[0].attribute[0].g
    branch.output.append(branch.output[0])
    with pytest.raises(StepError, match="its subgraphs do not fit its inputs and outputs"):
        rewrite(model)
