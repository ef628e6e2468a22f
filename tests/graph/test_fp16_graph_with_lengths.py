"""Where a graph that is rewritten to float16 counts, it counts exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from artifacts.graph.cast_repair import repair_casts
from artifacts.graph.fp16_graph import Fp16Changes, Fp16Options, rewrite_to_fp16
from artifacts.graph.fp16_values import Fp16Rounding
from artifacts.graph.tensor_content import TensorReader
from cast_cases import CASES, LOOP, ROUNDED, Feeds, assert_computes_the_same, model_of, run, run_literally


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
