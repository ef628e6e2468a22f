from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from pydantic import ValidationError

from artifacts.nemo.networks import fold_batch_norm
from artifacts.nemo.transducer import sinusoids
from artifacts.speech.corpus import read_corpus
from artifacts.steps.export_encoder import Params

pytestmark = pytest.mark.slow

BOUND = 1e-4


@pytest.fixture(scope="session")
def encoder(exports: Any) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(exports.folder / "encoder_fp32" / "encoder-model.onnx")


def _encode(session: onnxruntime.InferenceSession, features: torch.Tensor, lengths: torch.Tensor) -> Any:
    return session.run(
        ["encoder_output", "encoded_lengths"], {"audio_signal": features.numpy(), "length": lengths.numpy()}
    )


@pytest.mark.parametrize(
    ("params", "is_good"),
    [
        ({}, True),
        ({"opset": 20}, True),
        ({"opset": 16}, False),
        ({"opset": 21}, False),
        ({"opset": "17"}, False),
        ({"dynamic_axes": False}, False),
        ({"dynamic_axes": False, "batch_size": 1}, False),
        ({"dynamic_axes": False, "batch_size": 1, "frames": 3000}, True),
        ({"dynamic_axes": False, "batch_size": 0, "frames": 3000}, False),
        ({"dynamic_axes": False, "batch_size": 1, "frames": 40_001}, False),
        ({"frames": 3000}, False),
        ({"dynamo": True}, False),
    ],
)
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        assert Params(**params).dynamic_axes == (Params(**params).fixed_sizes is None)
    else:
        with pytest.raises(ValidationError):
            Params(**params)


def test_there_is_one_valid_file_and_its_differences_were_measured(exports: Any) -> None:
    path = exports.folder / "encoder_fp32" / "encoder-model.onnx"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    onnx.checker.check_model(str(path), full_check=True)
    assert 0 < exports.metrics["encoder_fp32"]["encoder_output_max_abs_diff"] < BOUND


def test_batch_normalisation_is_folded_by_us_and_the_table_of_positions_is_ours(
    exports: Any, restored_model: Any
) -> None:
    graph = onnx.load(exports.folder / "encoder_fp32" / "encoder-model.onnx").graph
    assert not [node for node in graph.node if node.op_type == "BatchNormalization"]
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = restored_model.encoder.layers
    for index, layer in enumerate(layers):
        convolution = layer.conv.depthwise_conv
        folded = fold_batch_norm(convolution.weight, convolution.bias, layer.conv.batch_norm)
        for name, numbers in zip(("weight", "bias"), folded, strict=True):
            found = tensors[f"encoder.layers.{index}.conv.depthwise_conv.{name}"]
            np.testing.assert_array_equal(found, numbers.numpy())
    assert len(layers) == 5
    table = restored_model.encoder.pos_enc.pe.numpy()
    constants = [numpy_helper.to_array(node.attribute[0].t) for node in graph.node if node.op_type == "Constant"]
    assert any(numbers.shape == table.shape and np.array_equal(numbers, table) for numbers in constants)
    positions = np.arange(table.shape[1] // 2, -(table.shape[1] // 2) - 1, -1).astype(np.float32)
    np.testing.assert_array_equal(table[0], sinusoids(positions, table.shape[2]))


def test_inputs_and_outputs_are_named_typed_and_shaped_as_promised(
    encoder: onnxruntime.InferenceSession, restored_model: Any
) -> None:
    assert [(v.name, v.type, v.shape) for v in encoder.get_inputs()] == [
        ("audio_signal", "tensor(float)", ["batch", 128, "frames"]),
        ("length", "tensor(int64)", ["batch"]),
    ]
    assert [(v.name, v.type, v.shape) for v in encoder.get_outputs()] == [
        ("encoder_output", "tensor(float)", ["batch", restored_model.encoder.d_model, "encoder_frames"]),
        ("encoded_lengths", "tensor(int64)", ["batch"]),
    ]


def test_a_batch_of_speech_is_encoded_as_nemo_does(
    encoder: onnxruntime.InferenceSession, restored_model: Any, speech: Any
) -> None:
    features, lengths = speech
    assert len(set(lengths.tolist())) == 3
    want, want_lengths = restored_model.encoder(audio_signal=features, length=lengths)
    output, output_lengths = _encode(encoder, features, lengths)
    assert output_lengths.tolist() == want_lengths.tolist()
    assert np.max(np.abs(output - want.numpy())) < BOUND


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_speech_of_any_number_of_frames_is_encoded_as_nemo_does(
    cut: int, encoder: onnxruntime.InferenceSession, restored_model: Any, speech: Any
) -> None:
    frames = int(speech[1][0]) - cut
    features, lengths = speech[0][:1, :, :frames], torch.tensor([frames])
    want, _ = restored_model.encoder(audio_signal=features, length=lengths)
    output, output_lengths = _encode(encoder, features, lengths)
    assert output_lengths.tolist() == [-(-frames // 8)]
    assert np.max(np.abs(output - want.numpy())) < BOUND


def test_a_minute_of_speech_is_encoded_as_nemo_does(
    encoder: onnxruntime.InferenceSession, restored_model: Any, evaluation: Path
) -> None:
    corpus = read_corpus(evaluation, ("long_60s",))
    waveform = torch.from_numpy(corpus.waveform(corpus.utterances[0]))[None]
    features, lengths = restored_model.preprocessor(input_signal=waveform, length=torch.tensor([waveform.shape[1]]))
    want, _ = restored_model.encoder(audio_signal=features, length=lengths)
    output, _ = _encode(encoder, features, lengths)
    assert output.shape[2] > 700
    assert np.max(np.abs(output - want.numpy())) < BOUND


def test_what_follows_a_row_changes_nothing_of_it(encoder: onnxruntime.InferenceSession, speech: Any) -> None:
    features, lengths = speech
    output, output_lengths = _encode(encoder, features, lengths)
    for row, (frames, encoded) in enumerate(zip(lengths.tolist(), output_lengths.tolist(), strict=True)):
        alone, _ = _encode(encoder, features[row : row + 1, :, :frames], torch.tensor([frames]))
        assert np.max(np.abs(output[row, :, :encoded] - alone[0])) < BOUND


def test_much_more_than_400_seconds_fail_when_the_graph_runs(encoder: onnxruntime.InferenceSession) -> None:
    features, lengths = torch.zeros(1, 128, 40_009), torch.tensor([40_009])
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        _encode(encoder, features, lengths)


def test_fixed_axes_make_a_graph_of_one_size(exports: Any, restored_model: Any, speech: Any) -> None:
    path = exports.folder / "encoder_fp32_fixed_shape" / "encoder-model.onnx"
    session = onnxruntime.InferenceSession(path)
    assert [value.shape for value in session.get_inputs()] == [[2, 128, 203], [2]]
    assert [value.shape for value in session.get_outputs()] == [[2, restored_model.encoder.d_model, 26], [2]]
    features, lengths = speech[0][:2, :, :203], torch.tensor([203, 150])
    want, want_lengths = restored_model.encoder(audio_signal=features, length=lengths)
    output, output_lengths = _encode(session, features, lengths)
    assert output_lengths.tolist() == want_lengths.tolist() == [26, 19]
    assert np.max(np.abs(output - want.numpy())) < BOUND
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        _encode(session, features[:, :, :202], lengths)
