"""The smoothed model has the same function for any α; its error when quantised is smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.graph.change_metrics import op_counts
from artifacts.graph.model_file import consolidate
from artifacts.graph.quantization.activation_statistics import ActivationStatistics, StatisticsReader, write_statistics
from artifacts.graph.quantization.weight_matmuls import weight_matmuls
from artifacts.steps import convert_fp16, quantize_dynamic, smooth_activations
from artifacts.steps.smooth_activations import Params
from calibrated_speech import Speech
from quantised_models import Features, Metrics, digests, encode, onnx_file, product_model, run_elsewhere


@pytest.fixture(scope="module")
def speech(preprocessor: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Speech:
    return Speech(preprocessor, calibration, tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def statistics(encoder_fp32: Path, speech: Speech) -> Path:
    return speech.statistics(encoder_fp32)


@pytest.fixture(scope="module")
def smoothed(encoder_fp32: Path, statistics: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    return smooth(encoder_fp32, statistics, tmp_path_factory.mktemp("smoothed"))


def smooth(model: Path, statistics: Path, out: Path, **params: Any) -> tuple[Path, Metrics]:
    out.mkdir(exist_ok=True)
    return out, smooth_activations.run(out, Params(**params), model=model, statistics=statistics)


def small_statistics(folder: Path, value: str = "x", channels: int = 2) -> Path:
    folder.mkdir()
    rows = np.linspace(-1, 3, 8 * channels, dtype=np.float32).reshape(8, channels)
    low, high = rows.min(axis=0), rows.max(axis=0)
    write_statistics(folder, [ActivationStatistics(value, 8, low, high, np.abs(rows).max(axis=0), 3.0, rows)], {})
    return folder


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("{}", True),
        ('{"alpha": "search", "alpha_step": 0.2, "statistic": "percentile"}', True),
        ('{"alpha": 0, "nodes_to_exclude": ["/layers.0/MatMul"]}', True),
        ('{"alpha": 1.0, "reduce_range": false}', True),
        ('{"alpha": -0.1}', False),
        ('{"alpha": 1.1}', False),
        ('{"alpha": NaN}', False),
        ('{"alpha": "auto"}', False),
        ('{"alpha_step": 0}', False),
        ('{"statistic": "mean"}', False),
        ('{"alfa": 0.5}', False),
    ],
)
def test_params(text: str, good: bool) -> None:
    if good:
        Params.model_validate_json(text)
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(text)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, "search"])
def test_the_smoothed_encoder_has_the_same_function(
    encoder_fp32: Path, statistics: Path, speech_features: Features, tmp_path: Path, alpha: float | str
) -> None:
    out, _ = smooth(encoder_fp32, statistics, tmp_path / "out", alpha=alpha)
    features = speech_features[::3]
    for found, expected in zip(encode(out, features), encode(encoder_fp32, features), strict=True):
        np.testing.assert_array_equal(found[1], expected[1])
        assert np.abs(found[0] - expected[0]).max() < 1e-5 * np.abs(expected[0]).max()


def test_norms_take_their_scales_and_products_of_activations_get_a_mul(
    encoder_fp32: Path, smoothed: tuple[Path, Metrics]
) -> None:
    out, metrics = smoothed
    model = onnx.load(onnx_file(encoder_fp32))
    groups = {matmul.activation for matmul in weight_matmuls(model)}
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    norms = sum(producers[value] == "LayerNormalization" for value in groups)
    assert metrics["values_smoothed"] == int(metrics["folded"]) + int(metrics["explicit_muls"])
    assert int(metrics["values_smoothed"]) + int(metrics["values_left"]) == len(groups)
    assert metrics["folded"] == norms > 0
    before, after = op_counts(model), op_counts(onnx.load(onnx_file(out)))
    assert after["Mul"] - before["Mul"] == metrics["explicit_muls"] > 0
    assert {op for op in before | after if before[op] != after[op]} <= {"Mul", "Constant"}
    assert metrics["Mul_after"] == after["Mul"]
    assert metrics["bytes_after"] == sum(path.stat().st_size for path in out.iterdir())


def test_the_search_lowers_the_error_by_a_tenth_and_no_value_s_error_is_above_the_expected(
    smoothed: tuple[Path, Metrics], statistics: Path
) -> None:
    out, metrics = smoothed
    values = json.loads((out / "smoothing.json").read_text())["values"]
    assert [one["value"] for one in values] == StatisticsReader(statistics).values
    before, after = (
        {value: float(metrics[f"{name}:{value}"]) for value in StatisticsReader(statistics).values}
        for name in ("error_before", "error")
    )
    for one in values:
        assert (one["alpha"] is not None) == (one["divided_in"] is not None)
        if one["alpha"] is None:
            assert after[one["value"]] == before[one["value"]]
        # what is expected is lower, and within 8 % of what is measured: 1.08 / 0.92
        assert after[one["value"]] < 1.18 * before[one["value"]]
    assert max(len(one["readers"]) for one in values) >= 3
    assert metrics["mean_error"] == pytest.approx(np.mean(list(after.values())))
    assert float(metrics["mean_error"]) < 0.9 * float(metrics["mean_error_before"])
    assert 0.4 < float(metrics["mean_alpha"]) < 0.95


def test_the_channels_of_a_smoothed_value_are_alike(
    encoder_fp32: Path, statistics: Path, smoothed: tuple[Path, Metrics], tmp_path: Path
) -> None:
    """With α = 1 the largest magnitudes of all channels are nearly 1: a norm's gamma and beta were divided by them."""
    out, _ = smooth(encoder_fp32, statistics, tmp_path / "out", alpha=1.0)
    name = "encoder.layers.0.norm_feed_forward1.weight"
    before, after = (
        next(numpy_helper.to_array(t) for t in onnx.load(onnx_file(folder)).graph.initializer if t.name == name)
        for folder in (encoder_fp32, out)
    )
    value = next(value for value in StatisticsReader(statistics).values if "0/norm_feed_forward1" in value)
    peaks = StatisticsReader(statistics).read(value).abs_max
    assert peaks.max() / peaks.min() > 2
    np.testing.assert_allclose(after, before / peaks, rtol=1 / 15)  # the scale has four bits


def test_a_percentile_makes_other_scales(encoder_fp32: Path, statistics: Path, tmp_path: Path) -> None:
    outs = [
        smooth(encoder_fp32, statistics, tmp_path / name, alpha=0.5, statistic=name)[0]
        for name in ("absmax", "percentile")
    ]
    assert digests(outs[0]) != digests(outs[1])


def test_excluded_nodes_keep_their_weights(encoder_fp32: Path, statistics: Path, tmp_path: Path) -> None:
    model = onnx.load(onnx_file(encoder_fp32))
    query = next(matmul for matmul in weight_matmuls(model) if "linear_q" in matmul.node.name)
    out, metrics = smooth(encoder_fp32, statistics, tmp_path / "out", nodes_to_exclude=(query.node.name,))
    after = onnx.load(onnx_file(out))
    assert query.node in after.graph.node
    assert query.weight in after.graph.initializer
    values = {one["value"]: one for one in json.loads((out / "smoothing.json").read_text())["values"]}
    assert values[query.activation]["divided_in"] == "explicit Mul", "the excluded node reads the value as it was"
    assert len(values[query.activation]["readers"]) == 2
    assert metrics["folded"] == sum(one["divided_in"] == "LayerNormalization" for one in values.values())


def test_the_bytes_depend_on_nothing_but_the_model_and_its_values(
    encoder_fp32: Path, speech: Speech, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    consolidate(onnx_file(encoder_fp32), source / "encoder-model.onnx", external=True)
    before, statistics = digests(source), speech.statistics(source)
    here, _ = smooth(source, statistics, tmp_path / "here")
    assert {"encoder-model.onnx", "encoder-model.onnx.data", "smoothing.json"} == set(digests(here))
    there = tmp_path / "there"
    run_elsewhere(smooth_activations, there, {"model": source, "statistics": statistics})
    assert digests(there) == digests(here)
    assert digests(source) == before


def test_an_unknown_node_to_exclude_is_named_with_the_nearest(tmp_path: Path) -> None:
    source, measured = product_model(tmp_path / "source"), small_statistics(tmp_path / "statistics")
    with pytest.raises(StepError, match=r"model\.onnx: no node is called 'prodct'") as caught:
        smooth(source, measured, tmp_path / "out", nodes_to_exclude=("prodct",))
    assert caught.value.fix == "did you mean 'product'?"


@pytest.mark.parametrize(
    ("value", "channels", "fact"),
    [
        ("z", 2, "no statistics of the value 'x'"),
        ("x", 3, "statistics of the value 'x': 3 channels, 'product' multiplies 2"),
    ],
)
def test_statistics_of_another_model_are_refused(tmp_path: Path, value: str, channels: int, fact: str) -> None:
    measured = small_statistics(tmp_path / "statistics", value, channels)
    with pytest.raises(StepError) as caught:
        smooth(product_model(tmp_path / "source"), measured, tmp_path / "out")
    assert (caught.value.fact, caught.value.fix) == (fact, "calibrate on this model")


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_refused(tmp_path: Path, number: float) -> None:
    source = product_model(tmp_path / "source", [[1, 2], [3, number]])
    with pytest.raises(StepError, match="weight 'w': has NaN or infinity"):
        smooth(source, small_statistics(tmp_path / "statistics"), tmp_path / "out")


def test_a_model_without_need_of_smoothing_is_refused(tmp_path: Path) -> None:
    source, measured = product_model(tmp_path / "source"), small_statistics(tmp_path / "statistics")
    with pytest.raises(StepError, match=r"model\.onnx: 0 values smoothed of 0"):
        smooth(source, measured, tmp_path / "out", nodes_to_exclude=("product",))


def test_models_that_are_not_float32_are_refused(encoder_fp32: Path, statistics: Path, tmp_path: Path) -> None:
    half, integers = tmp_path / "half", tmp_path / "integers"
    half.mkdir()
    integers.mkdir()
    convert_fp16.run(half, convert_fp16.Params(), model=product_model(tmp_path / "source"))
    quantize_dynamic.run(integers, quantize_dynamic.Params(), model=tmp_path / "source")
    for folder, fact in ((half, "has fp16 tensors"), (integers, "quantised already")):
        with pytest.raises(StepError, match=rf"model\.onnx: {fact}"):
            smooth(folder, statistics, tmp_path / "out")
