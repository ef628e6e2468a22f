"""Channels become outliers, no bit of the output changes, and stock dynamic int8 loses the words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.graph.model_file import consolidate
from artifacts.steps import convert_fp16, inject_outliers, quantize_dynamic
from artifacts.steps.inject_outliers import Params
from quantised_models import Array, Features, Metrics, cosine_error, digests, encode, onnx_file, run_elsewhere

TEXT = """<ir_version: 8, opset_import: ["" : 17]> g (float[B,3] x) => (float[B,2] y)
<float[3] gamma = {1, 2, 1}, float[3] beta = {0, 1, 0}, float[3,2] w = {1, 2, 3, 4, 5, 6}> {
  n = LayerNormalization(x, gamma, beta)
  y = MatMul(n, w)
}"""


@pytest.fixture(scope="module")
def outlier_encoder(encoder_fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    return inject(encoder_fp32, tmp_path_factory.mktemp("outliers"))


def inject(model: Path, out: Path, **params: Any) -> tuple[Path, Metrics]:
    out.mkdir(exist_ok=True)
    return out, inject_outliers.run(out, Params(**params), model=model)


def weights(folder: Path) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(onnx_file(folder)).graph.initializer}


def small_model(folder: Path, text: str = TEXT, numbers: Mapping[str, object] = MappingProxyType({})) -> Path:
    folder.mkdir()
    model = parser.parse_model(text)
    for tensor in model.graph.initializer:
        if tensor.name in numbers:
            values = np.array(numbers[tensor.name], np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, folder / "model.onnx")
    return folder


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("{}", True),
        ('{"channels": [0, 95], "log2_gain": 16}', True),
        ('{"channels": []}', False),
        ('{"channels": [-1]}', False),
        ('{"channels": 45}', False),
        ('{"log2_gain": 0}', False),
        ('{"log2_gain": 17}', False),
        ('{"log2_gain": 6.5}', False),
        ('{"gain": 100}', False),
    ],
)
def test_params(text: str, good: bool) -> None:
    if good:
        Params.model_validate_json(text)
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(text)


def test_not_one_bit_of_the_output_changes(
    encoder_fp32: Path, outlier_encoder: tuple[Path, Metrics], speech_features: Features
) -> None:
    found, expected = encode(outlier_encoder[0], speech_features), encode(encoder_fp32, speech_features)
    for (outputs, lengths), (expected_outputs, expected_lengths) in zip(found, expected, strict=True):
        assert outputs.tobytes() == expected_outputs.tobytes()
        assert lengths.tobytes() == expected_lengths.tobytes()


def test_the_same_channel_of_every_layer_is_multiplied_and_its_consumers_are_divided(
    encoder_fp32: Path, outlier_encoder: tuple[Path, Metrics]
) -> None:
    folder, metrics = outlier_encoder
    before, after = weights(encoder_fp32), weights(folder)
    assert list(before) == list(after)
    changed = {name: after[name] for name in before if before[name].tobytes() != after[name].tobytes()}
    channel = 45
    rows = 0
    for name, numbers in changed.items():
        gain = 128 if numbers.ndim == 1 else 1 / 128
        np.testing.assert_array_equal(numbers[channel], before[name][channel] * np.float32(gain))
        np.testing.assert_array_equal(np.delete(numbers, channel, 0), np.delete(before[name], channel, 0))
        rows += numbers.ndim == 2
    # Of the five norms of each of the five layers, three feed MatMuls: one each, and the attention's q, k and v.
    assert (metrics["layer_norms"], metrics["layer_norms_left"]) == (15, 10)
    assert (metrics["channels"], metrics["gain"]) == (1, 128)
    assert metrics["weights"] == metrics["rows"] == rows == 25
    assert len(changed) == 2 * 15 + 25


def test_the_outliers_are_a_hundred_times_as_large_as_other_channels(
    encoder_fp32: Path, outlier_encoder: tuple[Path, Metrics], speech_features: Features
) -> None:
    plain, outliers = (loudest_to_median(folder, speech_features[:3]) for folder in (encoder_fp32, outlier_encoder[0]))
    assert plain.max() < 4
    assert 80 < outliers.min() < np.median(outliers) < outliers.max() < 250


def loudest_to_median(folder: Path, features: Features) -> Array:
    """The largest channel's magnitude divided by the median channel's, for each norm that feeds MatMuls."""
    model = onnx.load(onnx_file(folder))
    inputs = {node.input[0] for node in model.graph.node if node.op_type == "MatMul"}
    values = [node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization"]
    values = [value for value in values if value in inputs]
    model.graph.output.extend(helper.make_tensor_value_info(value, TensorProto.FLOAT, None) for value in values)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    peaks: list[Array] = []
    for audio, length in features:
        runs = session.run(values, {"audio_signal": audio, "length": length})
        peaks.append(np.stack([np.abs(run[0]).max(axis=0) for run in runs]))
    loudest = np.max(peaks, axis=0)
    return np.asarray(loudest.max(axis=1) / np.median(loudest, axis=1))


def test_dynamic_int8_fails_and_the_more_the_longer_the_recording_is(
    encoder_fp32: Path, outlier_encoder: tuple[Path, Metrics], speech_features: Features, tmp_path: Path
) -> None:
    by_length = sorted(speech_features, key=lambda pair: int(pair[1][0]))
    features = [by_length[0], by_length[-1]]
    expected = encode(encoder_fp32, features)
    drifts = []
    for name, model in (("plain", encoder_fp32), ("outliers", outlier_encoder[0])):
        out = tmp_path / name
        out.mkdir()
        quantize_dynamic.run(out, quantize_dynamic.Params.model_validate({}), model=model)
        found = encode(out, features)
        drifts.append([cosine_error([run], [other]) for run, other in zip(found, expected, strict=True)])
    (plain_short, plain_long), (short, long) = drifts
    assert max(plain_short, plain_long) < 1e-3
    assert short > 20 * plain_short
    assert long > 100 * plain_long
    assert long > 2 * short


def test_channels_and_gain_are_those_of_the_params(tmp_path: Path) -> None:
    out, metrics = inject(small_model(tmp_path / "source"), tmp_path / "out", channels=(1, 2, 1), log2_gain=3)
    numbers = weights(out)
    assert metrics == {"channels": 2, "gain": 8, "layer_norms": 1, "layer_norms_left": 0, "weights": 1, "rows": 2}
    np.testing.assert_array_equal(numbers["gamma"], [1, 16, 8])
    np.testing.assert_array_equal(numbers["beta"], [0, 8, 0])
    np.testing.assert_array_equal(numbers["w"], [[1, 2], [0.375, 0.5], [0.625, 0.75]])


def test_a_channel_that_does_not_exist_is_refused(encoder_fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"LayerNormalization': has channels 0 to 95, not 96"):
        inject(encoder_fp32, tmp_path / "out", channels=(45, 96))


SHARED = """<ir_version: 8, opset_import: ["" : 17]> g (float[B,3] x) => (float[B,2] y)
<float[3] gamma = {1, 2, 1}, float[3] beta = {0, 1, 0}, float[3,2] w = {1, 2, 3, 4, 5, 6}> {
  n = LayerNormalization(x, gamma, beta)
  a = MatMul(n, w)
  m = LayerNormalization(x, gamma, beta)
  b = MatMul(m, w)
  c = MatMul(x, w)
  r = Relu(x)
  o = LayerNormalization(r, gamma, beta)
  s = ReduceSum<keepdims: int = 0>(o)
  d = Add(a, b)
  e = Add(d, c)
  y = Add(e, s)
}"""


def test_values_with_other_consumers_stay(tmp_path: Path) -> None:
    source = small_model(tmp_path / "source", SHARED)
    out, metrics = inject(source, tmp_path / "out", channels=(1,))
    assert (metrics["layer_norms"], metrics["layer_norms_left"]) == (2, 1)
    features = np.array([[1, 2, 4], [-3, 0.5, 7]], np.float32)
    found, expected = (
        onnxruntime.InferenceSession(onnx_file(folder), providers=["CPUExecutionProvider"]).run(None, {"x": features})
        for folder in (out, source)
    )
    assert found[0].tobytes() == expected[0].tobytes()
    for name in ("gamma", "beta", "w"):
        np.testing.assert_array_equal(weights(out)[name], weights(source)[name])


def test_the_bytes_depend_on_nothing_but_the_model_and_its_values(
    encoder_fp32: Path, outlier_encoder: tuple[Path, Metrics], tmp_path: Path
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    consolidate(onnx_file(encoder_fp32), source / "encoder-model.onnx", external=True)
    before = digests(source)
    run_elsewhere(inject_outliers, out, {"model": source})
    assert digests(source) == before
    again = tmp_path / "again"
    again.mkdir()
    consolidate(onnx_file(out), again / "encoder-model.onnx", external=False)
    assert digests(again) == digests(outlier_encoder[0])


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"gamma": [1, np.nan, 1]}, "'gamma': has NaN or infinity"),
        ({"w": [[1, 2], [3, np.inf], [5, 6]]}, "'w': has NaN or infinity"),
        ({"w": [[1, 2], [3, 1e-43], [5, 6]]}, "'w': float32 cannot represent it scaled by the gain"),
        ({"beta": [0, 3e38, 0]}, "'beta': float32 cannot represent it scaled by the gain"),
    ],
)
def test_numbers_that_cannot_be_scaled_exactly_are_refused(
    tmp_path: Path, numbers: dict[str, object], message: str
) -> None:
    with pytest.raises(StepError, match=message):
        inject(small_model(tmp_path / "source", numbers=numbers), tmp_path / "out", channels=(1,))


def test_an_output_that_was_not_finite_before_is_told_in_a_metric(tmp_path: Path) -> None:
    source = small_model(tmp_path / "source", numbers={"w": [[1, np.nan], [3, 4], [5, 6]]})
    _, metrics = inject(source, tmp_path / "out", channels=(1,))
    assert metrics["smoke_run"] == "not run: model.onnx: output 'y' is not finite"


def test_a_model_without_norms_to_change_is_refused(decoder_joint_fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"\.onnx: 0 LayerNormalizations changed, 0 left"):
        inject(decoder_joint_fp32, tmp_path / "out")


def test_a_model_that_is_not_float32_is_refused(tmp_path: Path) -> None:
    source = small_model(tmp_path / "source")
    half, int8 = tmp_path / "half", tmp_path / "int8"
    half.mkdir()
    int8.mkdir()
    convert_fp16.run(half, convert_fp16.Params(), model=source)
    quantize_dynamic.run(int8, quantize_dynamic.Params.model_validate({}), model=source)
    with pytest.raises(StepError, match=r"model\.onnx: has fp16 tensors"):
        inject(half, tmp_path / "out")
    with pytest.raises(StepError, match=r"model\.onnx: quantised already"):
        inject(int8, tmp_path / "out")
