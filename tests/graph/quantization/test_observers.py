from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, helper, parser, version_converter

from artifacts.errors import StepError
from artifacts.graph.quantization.observers import PREFIX, Observer, add_observers
from artifacts.graph.quantization.weight_matmuls import matrices_to_initializers, weight_matmuls

Array = npt.NDArray[Any]
Features = list[tuple[Array, Array]]

SMALL = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[A, T, 3] x) => (float[A, T, 3] y) {
  y = Relu(x)
}
"""


def run(model: ModelProto, feeds: dict[str, Array], outputs: list[str]) -> dict[str, Array]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(outputs, session.run(outputs, feeds), strict=True))


@pytest.fixture
def encoder(encoder_fp32: Path) -> ModelProto:
    model = onnx.load(encoder_fp32 / "encoder-model.onnx")
    matrices_to_initializers(model)
    return model


def observe_all(model: ModelProto, most_rows: int = 16, row_step: int = 2) -> list[Observer]:
    channels = {matmul.activation: matmul.sizes[0] for matmul in weight_matmuls(model)}
    return add_observers(model, channels.items(), most_rows=most_rows, row_step=row_step)


def feeds(features: tuple[Array, Array]) -> dict[str, Array]:
    return {"audio_signal": features[0], "length": features[1]}


def test_observers_give_the_exact_range_and_true_rows_of_every_activation(
    encoder: ModelProto, speech_features: Features
) -> None:
    raw = ModelProto()
    raw.CopyFrom(encoder)
    observers = observe_all(encoder)
    assert len(observers) == 32
    for observer in observers:
        raw.graph.output.append(helper.make_tensor_value_info(observer.value, onnx.TensorProto.FLOAT, None))
    short = feeds(speech_features[0])
    expected = run(raw, short, [observer.value for observer in observers])
    found = run(encoder, short, [output for observer in observers for output in observer.outputs])
    for observer in observers:
        rows = expected[observer.value].reshape(-1, observer.channels)
        np.testing.assert_array_equal(found[observer.low], rows.min(axis=0))
        np.testing.assert_array_equal(found[observer.high], rows.max(axis=0))
        assert found[observer.frames].tolist() == [len(rows)]
        np.testing.assert_array_equal(found[observer.rows], rows[:: 2 + len(rows) // 16])


def test_an_observed_encoder_has_the_same_outputs_bit_for_bit(encoder: ModelProto, speech_features: Features) -> None:
    names = [output.name for output in encoder.graph.output]
    before = [run(encoder, feeds(features), names) for features in speech_features[:3]]
    observe_all(encoder)
    assert [output.name for output in encoder.graph.output][: len(names)] == names
    for features, expected in zip(speech_features, before, strict=False):
        for name, found in run(encoder, feeds(features), names).items():
            np.testing.assert_array_equal(found, expected[name])


def test_a_value_is_measured_as_soon_as_it_is_computed(
    encoder: ModelProto, speech_features: Features, tmp_path: Path
) -> None:
    """Otherwise all values wait in memory until the network is done."""
    observers = observe_all(encoder)
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    session = onnxruntime.InferenceSession(encoder.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, feeds(speech_features[0]))
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    order = [event["name"].removesuffix("_kernel_time") for event in events if event["name"].endswith("_kernel_time")]
    assert len(order) > 500
    makers = {output: node.name for node in encoder.graph.node for output in node.output}
    followed = 0
    for place, observer in enumerate(observers):
        mine = [index for index, name in enumerate(order) if name.startswith(f"{PREFIX}{place}.")]
        assert mine[-1] - mine[0] < 10
        if makers[observer.value] in order:  # not fused with other nodes
            followed += 1
            assert mine[0] - order.index(makers[observer.value]) < 3
    assert followed >= 20


@pytest.mark.parametrize("opset", [15, 17, 18, 21])
def test_old_and_new_opsets_measure_the_same(opset: int) -> None:
    model = version_converter.convert_version(parser.parse_model(SMALL), opset)
    (observer,) = add_observers(model, [("y", 3)], most_rows=4, row_step=1)
    onnx.checker.check_model(model)
    x = np.arange(-12, 18, dtype=np.float32).reshape(2, 5, 3)
    found = run(model, {"x": x}, list(observer.outputs))
    rows = np.maximum(x, 0).reshape(10, 3)
    assert found[observer.low].tolist() == rows.min(axis=0).tolist()
    assert found[observer.high].tolist() == rows.max(axis=0).tolist()
    assert found[observer.frames].tolist() == [10]
    assert found[observer.rows].tolist() == rows[::3].tolist()


@pytest.mark.parametrize("frames", [1, 2, 7, 16, 17, 31, 32, 33, 100, 1525])
@pytest.mark.parametrize(("most_rows", "row_step"), [(1, 1), (16, 1), (16, 3), (64, 2)])
def test_rows_keep_within_both_limits_and_there_is_at_least_one(frames: int, most_rows: int, row_step: int) -> None:
    model = parser.parse_model(SMALL)
    (observer,) = add_observers(model, [("x", 3)], most_rows=most_rows, row_step=row_step)
    x = np.arange(3 * frames, dtype=np.float32).reshape(1, frames, 3)
    rows = run(model, {"x": x}, [observer.rows])[observer.rows]
    assert 1 <= len(rows) <= min(most_rows, -(-frames // row_step))
    assert len(rows) >= min(most_rows, -(-frames // row_step)) // 2
    np.testing.assert_array_equal(rows, x[0, :: row_step + frames // most_rows])


def test_an_opset_that_is_too_old_is_refused() -> None:
    model = parser.parse_model(SMALL.replace("17", "14"))
    with pytest.raises(StepError, match="opset 14: observers need 15 or above"):
        add_observers(model, [("y", 3)], most_rows=4, row_step=1)
