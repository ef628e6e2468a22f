"""The graph has one QuantizeLinear a value and int8 weights, and float weights where another node consumes them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper, parser

from artifacts.errors import StepError
from artifacts.graph.model_file import load_graph, save_graph
from artifacts.graph.quantization.activation_statistics import ActivationStatistics, StatisticsReader, write_statistics
from artifacts.graph.quantization.matrix_content import write_replaced
from artifacts.graph.quantization.static_int8 import Format, StaticMatMul, measure_matmuls, quantize_matmuls
from artifacts.graph.quantization.weight_matmuls import matmuls_by_activation

Array = np.ndarray[Any, Any]

ONE = "y = MatMul(x, w)"
SHARED_VALUE = "y = MatMul(x, w)\nz = MatMul(x, v)"
SHARED_WEIGHT = "k = Sigmoid(x)\ny = MatMul(x, w)\nz = MatMul(k, w)"

ROWS = np.random.default_rng(1).uniform(-1, 3, (32, 8)).astype(np.float32)
ROWS[0, 0], ROWS[1, 1] = -1, 3
ENDS = ROWS.min(axis=0), ROWS.max(axis=0), np.abs(ROWS).max(axis=0)


def make(folder: Path, body: str, weight: Array | None = None, external: bool = False) -> Path:
    outputs = "y z" if "z =" in body else "y"
    declared = ", ".join(f"float[B, {name}_n] {name}" for name in outputs.split())
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[B, 8] x) => ({declared}) {{ {body} }}'
    )
    for node in model.graph.node:
        node.name = f"make_{node.output[0]}"
    for seed, name in enumerate("wv"):
        if f" {name})" in body:
            numbers = np.random.default_rng(seed).standard_normal((8, 200), dtype=np.float32)
            numbers = numbers if weight is None else weight.astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(numbers, name))
    save_graph(model, folder / "float.onnx", external=external)
    return folder / "float.onnx"


@pytest.fixture
def statistics(tmp_path: Path) -> StatisticsReader:
    """Of `x` and `k`: from -1 to 3, with a percentile of 2."""
    folder = tmp_path / "statistics"
    folder.mkdir()
    measured = [ActivationStatistics(name, 32, *ENDS, 2.0, ROWS) for name in "xk"]
    write_statistics(folder, measured, {})
    return StatisticsReader(folder)


def quantize(
    source: Path,
    statistics: StatisticsReader,
    form: Format = "qdq",
    *,
    excluded: tuple[str, ...] = (),
    limit: int = 64,
    clipped: bool = False,
) -> tuple[ModelProto, list[StaticMatMul]]:
    model = load_graph(source)
    folder = source.parent
    groups = matmuls_by_activation(model, excluded).values()
    found = [one for group in groups for one in measure_matmuls(group, statistics, folder, limit, clipped)]
    contents = quantize_matmuls(model, found, limit, form, folder)
    write_replaced(model, folder, contents, folder / "quantized.onnx")
    onnx.checker.check_model(folder / "quantized.onnx", full_check=True)
    return onnx.load(folder / "quantized.onnx"), found


def values(model: ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def run(path: Path) -> list[Array]:
    return list(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": ROWS}))


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("body", [ONE, SHARED_VALUE, SHARED_WEIGHT])
def test_the_quantised_graph_computes_nearly_the_same(
    tmp_path: Path, statistics: StatisticsReader, body: str, form: Format, external: bool
) -> None:
    source = make(tmp_path, body, external=external)
    model, found = quantize(source, statistics, form)
    outputs = zip(found, run(source), run(tmp_path / "quantized.onnx"), strict=True)
    for index, (one, expected, made) in enumerate(outputs):
        error = float(np.square(made - expected).sum() / np.square(expected).sum())
        assert 0 < error < 1e-3
        if index == 0:  # the second reads other rows than the statistics say
            assert error == pytest.approx(one.error, rel=1e-3)
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts["QuantizeLinear"] == len({one.matmul.activation for one in found})
    assert counts["MatMul" if form == "qdq" else "MatMulInteger"] == len(found)
    assert [name for name in values(model) if name in ("w", "v")] == [], "no float weight is left"
    assert (tmp_path / "quantized.onnx.data").exists() == external


@pytest.mark.parametrize(("clipped", "span"), [(False, 4), (True, 3)])
def test_the_range_is_what_was_calibrated_and_holds_zero(
    tmp_path: Path, statistics: StatisticsReader, clipped: bool, span: float
) -> None:
    model, _ = quantize(make(tmp_path, ONE), statistics, clipped=clipped)
    assert values(model)["x_scale"] == np.float32(span / 255)
    assert values(model)["x_zero_point"] == np.rint(255 / span)
    assert values(model)["x_zero_point"].dtype == np.uint8


def test_the_ends_of_a_range_are_rounded_outwards_to_seven_bits(tmp_path: Path) -> None:
    statistics = tmp_path / "statistics"
    statistics.mkdir()
    ends = np.full(8, -1.0004, np.float32), np.full(8, 3.0004, np.float32)
    write_statistics(statistics, [ActivationStatistics("x", 32, *ends, ends[1], 4.0, ROWS)], {})
    _, (found,) = quantize(make(tmp_path, ONE), StatisticsReader(statistics))
    assert (found.low, found.high) == (-(1 + 1 / 64), 3 + 1 / 32)


@pytest.mark.parametrize("limit", [64, 127])
def test_each_column_spans_the_limit(tmp_path: Path, statistics: StatisticsReader, limit: int) -> None:
    source = make(tmp_path, ONE)
    weight = numpy_helper.to_array(onnx.load(source).graph.initializer[0])
    found = values(quantize(source, statistics, limit=limit)[0])
    assert found["w_quantized"].dtype == np.int8
    assert np.abs(found["w_quantized"]).max(axis=0).tolist() == [limit] * 200
    np.testing.assert_allclose(found["w_scale"], np.abs(weight).max(axis=0) / limit, rtol=1e-6)
    assert (np.abs(found["w_quantized"] * found["w_scale"] - weight) <= 0.50001 * found["w_scale"]).all()


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("body", [SHARED_VALUE, SHARED_WEIGHT])
def test_a_node_that_stays_float_keeps_its_inputs(
    tmp_path: Path, statistics: StatisticsReader, body: str, form: Format
) -> None:
    source = make(tmp_path, body)
    before = onnx.load(source)
    after, found = quantize(source, statistics, form, excluded=("make_z",))
    assert [one.node_name for one in found] == ["make_y"]
    kept = next(node for node in before.graph.node if node.name == "make_z")
    assert kept in after.graph.node
    np.testing.assert_array_equal(values(after)[kept.input[1]], values(before)[kept.input[1]])
    np.testing.assert_array_equal(run(tmp_path / "quantized.onnx")[1], run(source)[1])


def test_a_weight_that_would_become_zeros_is_refused(tmp_path: Path, statistics: StatisticsReader) -> None:
    with pytest.raises(StepError, match="weight 'w': quantised to zeros"):
        quantize(make(tmp_path, ONE, np.full((8, 200), 1e-40)), statistics)


@pytest.mark.parametrize(("clip", "ends"), [(0.5, (-0.5, 0.5)), (9, (-1, 3)), (0, (-1, 3))])
def test_the_percentile_bounds_both_ends_if_it_is_a_bound(
    tmp_path: Path, clip: float, ends: tuple[float, float]
) -> None:
    write_statistics(tmp_path, [ActivationStatistics("x", 32, *ENDS, clip, ROWS)], {})
    model, found = quantize(make(tmp_path, ONE), StatisticsReader(tmp_path), clipped=True)
    assert (found[0].low, found[0].high) == ends
    assert values(model)["x_scale"] == np.float32((ends[1] - ends[0]) / 255)


def test_columns_of_zeros_stay_zeros(tmp_path: Path, statistics: StatisticsReader) -> None:
    weight = np.zeros((8, 200))
    weight[:, 3] = 2
    found = values(quantize(make(tmp_path, ONE, weight), statistics)[0])
    np.testing.assert_array_equal(found["w_quantized"] * found["w_scale"], weight)
