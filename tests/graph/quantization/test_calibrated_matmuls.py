"""MatMuls are read with the statistics of their activation, and statistics of another model are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.model_file import load_graph
from artifacts.graph.quantization.activation_statistics import ActivationStatistics, StatisticsReader, write_statistics
from artifacts.graph.quantization.calibrated_matmuls import read_calibrated
from artifacts.graph.quantization.weight_matmuls import matmuls_by_activation, weight_matmuls


@pytest.fixture(scope="module")
def model(encoder_fp32: Path) -> ModelProto:
    return load_graph(encoder_fp32 / "encoder-model.onnx")


def statistics(folder: Path, value: str, channels: int) -> StatisticsReader:
    rows = np.ones((4, channels), np.float32)
    write_statistics(folder, [ActivationStatistics(value, 4, -rows[0], rows[0], rows[0], 1.0, rows)], {})
    return StatisticsReader(folder)


def test_the_consumers_of_a_value_are_together_without_the_excluded(model: ModelProto) -> None:
    everything = weight_matmuls(model)
    found = matmuls_by_activation(model, ())
    assert [one.node.name for group in found.values() for one in group] == [
        one.node.name for value in found for one in everything if one.activation == value
    ]
    queries = [one for one in everything if "linear_q" in one.node.name]
    attention = found[queries[0].activation]
    assert [one.node.name.split("_")[-1] for one in attention] == ["q/MatMul", "k/MatMul", "v/MatMul"]
    without = matmuls_by_activation(model, {queries[0].node.name})
    assert without[queries[0].activation] == attention[1:]
    assert len(without) == len(found)


def test_weights_come_with_their_statistics(model: ModelProto, encoder_fp32: Path, tmp_path: Path) -> None:
    value, group = next(iter(matmuls_by_activation(model, ()).items()))
    measured, weights = read_calibrated(group, statistics(tmp_path, value, group[0].sizes[0]), encoder_fp32)
    assert measured.value == value
    for one, weight in zip(group, weights, strict=True):
        np.testing.assert_array_equal(weight, numpy_helper.to_array(one.weight))


@pytest.mark.parametrize("other", ["value", "channels"])
def test_statistics_of_another_model_are_refused(
    model: ModelProto, encoder_fp32: Path, tmp_path: Path, other: str
) -> None:
    value, group = next(iter(matmuls_by_activation(model, ()).items()))
    channels = group[0].sizes[0]
    measured = statistics(tmp_path, "another" if other == "value" else value, channels - (other == "channels"))
    with pytest.raises(StepError) as caught:
        read_calibrated(group, measured, encoder_fp32)
    name = group[0].node.name
    facts = {
        "value": f"no statistics of the value '{value}'",
        "channels": f"statistics of the value '{value}': {channels - 1} channels, '{name}' multiplies {channels}",
    }
    assert (caught.value.fact, caught.value.fix) == (facts[other], "calibrate on this model")


@pytest.mark.parametrize("number", [np.nan, -np.inf])
def test_a_weight_that_is_not_finite_is_refused(encoder_fp32: Path, tmp_path: Path, number: float) -> None:
    broken = onnx.load(encoder_fp32 / "encoder-model.onnx")
    value, group = next(iter(matmuls_by_activation(broken, ()).items()))
    weight = numpy_helper.to_array(group[0].weight).copy()
    weight[3, 4] = number
    group[0].weight.CopyFrom(numpy_helper.from_array(weight, group[0].weight.name))
    measured = statistics(tmp_path, value, len(weight))
    with pytest.raises(StepError, match="has NaN or infinity") as caught:
        read_calibrated(group, measured, encoder_fp32)
    assert caught.value.fact == f"weight '{group[0].weight.name}': has NaN or infinity"
