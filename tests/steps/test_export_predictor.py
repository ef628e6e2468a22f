from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pydantic import ValidationError

from artifacts.steps.export_predictor import Params

BOUND = 1e-4
TEXT = "please call david on zero four two two five three"


@pytest.fixture(scope="session")
def predictor(exports: Any) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(exports.folder / "predictor_fp32" / "predictor-model.onnx")


@pytest.fixture(scope="session")
def tokens(restored_model: Any) -> np.ndarray:
    """A sentence as decoding gives it to the predictor, blank first: int64 [1, U]."""
    return np.array([[restored_model.decoder.blank_idx, *restored_model.tokenizer.text_to_ids(TEXT)]])


def _zeros(restored_model: Any, batch: int) -> np.ndarray:
    return np.zeros((restored_model.decoder.pred_rnn_layers, batch, restored_model.decoder.pred_hidden), np.float32)


@pytest.mark.parametrize(
    ("params", "is_good"),
    [
        ({}, True),
        ({"opset": 20}, True),
        ({"opset": 16}, False),
        ({"opset": 21}, False),
        ({"dynamic_axes": False}, False),
        ({"dynamic_axes": False, "tokens": 1}, False),
        ({"dynamic_axes": False, "batch_size": 1, "tokens": 1}, True),
        ({"dynamic_axes": False, "batch_size": 1, "tokens": 0}, False),
        ({"batch_size": 1}, False),
        ({"frames": 10}, False),
    ],
)
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        assert Params(**params).dynamic_axes == (Params(**params).fixed_sizes is None)
    else:
        with pytest.raises(ValidationError):
            Params(**params)


def test_there_is_one_valid_file_and_its_differences_were_measured(exports: Any) -> None:
    path = exports.folder / "predictor_fp32" / "predictor-model.onnx"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    onnx.checker.check_model(str(path), full_check=True)
    metrics = exports.metrics["predictor_fp32"]
    assert list(metrics) == ["g_max_abs_diff", "h_out_max_abs_diff", "c_out_max_abs_diff"]
    assert all(0 < value < BOUND for value in metrics.values())


def test_inputs_and_outputs_are_named_typed_and_shaped_as_promised(
    predictor: onnxruntime.InferenceSession, restored_model: Any
) -> None:
    layers, hidden = restored_model.decoder.pred_rnn_layers, restored_model.decoder.pred_hidden
    state = [layers, "batch", hidden]
    assert [(v.name, v.type, v.shape) for v in predictor.get_inputs()] == [
        ("y", "tensor(int64)", ["batch", "tokens"]), ("h", "tensor(float)", state), ("c", "tensor(float)", state),
    ]  # fmt: skip
    assert [(v.name, v.type, v.shape) for v in predictor.get_outputs()] == [
        ("g", "tensor(float)", ["batch", hidden, "tokens"]),
        ("h_out", "tensor(float)", state),
        ("c_out", "tensor(float)", state),
    ]


def test_a_sentence_is_predicted_as_nemo_does(
    predictor: onnxruntime.InferenceSession, restored_model: Any, tokens: np.ndarray
) -> None:
    zeros = _zeros(restored_model, 1)
    g, h, c = predictor.run(["g", "h_out", "c_out"], {"y": tokens, "h": zeros, "c": zeros})
    want, (want_h, want_c) = restored_model.decoder.predict(torch.from_numpy(tokens[:, 1:]), state=None, add_sos=True)
    for have, expected in ((g, want.transpose(1, 2)), (h, want_h), (c, want_c)):
        assert np.max(np.abs(have - expected.numpy())) < BOUND


def test_a_sentence_token_by_token_is_the_sentence_at_once(
    predictor: onnxruntime.InferenceSession, restored_model: Any, tokens: np.ndarray
) -> None:
    batch = np.repeat(tokens, 3, axis=0)
    zeros = h = c = _zeros(restored_model, 3)
    at_once, last_h, last_c = predictor.run(["g", "h_out", "c_out"], {"y": batch, "h": zeros, "c": zeros})
    for step in range(batch.shape[1]):
        g, h, c = predictor.run(["g", "h_out", "c_out"], {"y": batch[:, step : step + 1], "h": h, "c": c})
        assert np.max(np.abs(g[:, :, 0] - at_once[:, :, step])) < BOUND
    assert np.max(np.abs(h - last_h)) < BOUND
    assert np.max(np.abs(c - last_c)) < BOUND


def test_fixed_axes_make_a_graph_of_one_size(
    exports: Any, predictor: onnxruntime.InferenceSession, restored_model: Any, tokens: np.ndarray
) -> None:
    session = onnxruntime.InferenceSession(exports.folder / "predictor_fp32_fixed_shape" / "predictor-model.onnx")
    zeros = _zeros(restored_model, 1)
    assert [value.shape for value in session.get_inputs()] == [[1, 1], list(zeros.shape), list(zeros.shape)]
    assert session.get_outputs()[0].shape == [1, zeros.shape[2], 1]
    feeds = {"y": tokens[:, 1:2], "h": zeros, "c": zeros}
    for have, want in zip(session.run(None, feeds), predictor.run(None, feeds), strict=True):
        assert np.max(np.abs(have - want)) < BOUND
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):
        session.run(None, {**feeds, "y": tokens[:, :2]})
