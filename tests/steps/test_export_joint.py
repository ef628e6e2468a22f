from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pydantic import ValidationError

from artifacts.steps.export_joint import Params

BOUND = 1e-4


@pytest.fixture(scope="session")
def joint(exports: Any) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(exports.folder / "joint_fp32" / "joint-model.onnx")


@pytest.fixture(scope="session")
def spoken(restored_model: Any, speech: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder frames of speech [3, D, T] and the predictor's output [3, H, U] after the tokens of a sentence."""
    frames, _ = restored_model.encoder(audio_signal=speech[0], length=speech[1])
    tokens = torch.tensor([restored_model.tokenizer.text_to_ids("the taxi from the market")] * 3)
    predicted, _ = restored_model.decoder.predict(tokens, state=None, add_sos=True)
    return frames, predicted.transpose(1, 2)


def _logits(session: onnxruntime.InferenceSession, frames: torch.Tensor, predicted: torch.Tensor) -> np.ndarray:
    (logits,) = session.run(["joint_output"], {"encoder_output": frames.numpy(), "predictor_output": predicted.numpy()})
    return np.asarray(logits)


@pytest.mark.parametrize(
    ("params", "is_good"),
    [
        ({}, True),
        ({"opset": 20}, True),
        ({"opset": 16}, False),
        ({"opset": 21}, False),
        ({"dynamic_axes": False, "batch_size": 1, "tokens": 1}, False),
        ({"dynamic_axes": False, "batch_size": 1, "encoder_frames": 1, "tokens": 1}, True),
        ({"dynamic_axes": False, "batch_size": 1, "encoder_frames": -1, "tokens": 1}, False),
        ({"encoder_frames": 1}, False),
        ({"log_softmax": True}, False),
    ],
)
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        assert Params(**params).dynamic_axes == (Params(**params).fixed_sizes is None)
    else:
        with pytest.raises(ValidationError):
            Params(**params)


def test_there_is_one_valid_file_and_its_differences_were_measured(exports: Any) -> None:
    path = exports.folder / "joint_fp32" / "joint-model.onnx"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    onnx.checker.check_model(str(path), full_check=True)
    assert 0 < exports.metrics["joint_fp32"]["joint_output_max_abs_diff"] < BOUND


def test_inputs_and_outputs_are_named_typed_and_shaped_as_promised(
    joint: onnxruntime.InferenceSession, restored_model: Any
) -> None:
    assert [(v.name, v.type, v.shape) for v in joint.get_inputs()] == [
        ("encoder_output", "tensor(float)", ["batch", restored_model.encoder.d_model, "encoder_frames"]),
        ("predictor_output", "tensor(float)", ["batch", restored_model.decoder.pred_hidden, "tokens"]),
    ]
    width = restored_model.decoder.blank_idx + 1 + len(restored_model.cfg.decoding.durations)
    assert [(v.name, v.type, v.shape) for v in joint.get_outputs()] == [
        ("joint_output", "tensor(float)", ["batch", "encoder_frames", "tokens", width]),
    ]


def test_the_values_are_raw_logits_whose_softmax_is_what_nemo_gives(
    joint: onnxruntime.InferenceSession, restored_model: Any, spoken: tuple[torch.Tensor, torch.Tensor]
) -> None:
    logits = torch.from_numpy(_logits(joint, *spoken))
    want = restored_model.joint.joint(*(value.transpose(1, 2) for value in spoken))
    assert logits.shape == want.shape
    assert (logits.log_softmax(-1) - want).abs().max() < BOUND
    assert logits.logsumexp(-1).abs().max() > 1


def test_frames_and_tokens_one_by_one_are_the_same_as_all_at_once(
    joint: onnxruntime.InferenceSession, spoken: tuple[torch.Tensor, torch.Tensor]
) -> None:
    frames, predicted = spoken
    at_once = _logits(joint, frames, predicted)
    for t in range(0, frames.shape[2], 7):
        for u in range(predicted.shape[2]):
            alone = _logits(joint, frames[:, :, t : t + 1], predicted[:, :, u : u + 1])
            assert np.max(np.abs(alone[:, 0, 0] - at_once[:, t, u])) < BOUND


def test_fixed_axes_make_a_graph_of_one_size(
    exports: Any, joint: onnxruntime.InferenceSession, spoken: tuple[torch.Tensor, torch.Tensor]
) -> None:
    session = onnxruntime.InferenceSession(exports.folder / "joint_fp32_fixed_shape" / "joint-model.onnx")
    frame, predicted = spoken[0][:1, :, :1], spoken[1][:1, :, :1]
    assert [value.shape for value in session.get_inputs()] == [list(frame.shape), list(predicted.shape)]
    want = _logits(joint, frame, predicted)
    assert session.get_outputs()[0].shape == list(want.shape)
    assert np.max(np.abs(_logits(session, frame, predicted) - want)) < BOUND
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        _logits(session, spoken[0][:1, :, :2], predicted)
