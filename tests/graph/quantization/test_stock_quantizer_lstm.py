"""Unsigned LSTM weights are the signed ones: where nothing saturates, what comes out is the same bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, numpy_helper, parser

from artifacts.graph.quantization.stock_quantizer import make_lstm_weights_unsigned
from artifacts.graph.tensor_content import TensorReader

INPUTS, HIDDEN = 12, 8
TEXT = f"""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g
(float[T,1,{INPUTS}] x) => (float[T,1,1,{HIDDEN}] y) {{
  y = com.microsoft.DynamicQuantizeLSTM <hidden_size = {HIDDEN}> (x, w, r, , , , , , ws, wz, rs, rz)
}}"""


def signed(largest: int) -> ModelProto:
    model = parser.parse_model(TEXT)
    rng = np.random.default_rng(largest)
    for name, rows in (("w", INPUTS), ("r", HIDDEN)):
        numbers = rng.integers(-largest, largest + 1, (1, rows, 4 * HIDDEN)).astype(np.int8)
        scales = rng.uniform(0.5, 1.5, (1, 4 * HIDDEN)).astype(np.float32) / (8 * largest)
        zeros = np.zeros((1, 4 * HIDDEN), np.int8)
        tensors = ((name, numbers), (f"{name}s", scales), (f"{name}z", zeros))
        model.graph.initializer.extend(numpy_helper.from_array(values, tensor) for tensor, values in tensors)
    return model


def make_unsigned(model: ModelProto) -> int:
    with TensorReader(Path("model.onnx")) as reader:
        return make_lstm_weights_unsigned(model, reader)


def run(model: ModelProto) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(0).normal(size=(5, 1, INPUTS)).astype(np.float32)})[0]


def test_outputs_stay_the_same_bit_for_bit() -> None:
    before, after = signed(64), signed(64)  # 7 bits, which saturate nowhere
    assert make_unsigned(after) == 2
    assert np.array_equal(run(after), run(before))
    assert run(after).std() > 0.01


def test_weights_and_zero_points_move_together() -> None:
    before, after = signed(127), signed(127)
    make_unsigned(after)
    old, new = ({t.name: numpy_helper.to_array(t) for t in model.graph.initializer} for model in (before, after))
    for name in ("w", "r"):
        assert new[name].dtype == new[f"{name}z"].dtype == np.uint8
        np.testing.assert_array_equal(
            new[name].astype(np.int32) - new[f"{name}z"].astype(np.int32)[:, np.newaxis], old[name]
        )
        np.testing.assert_array_equal(new[f"{name}s"], old[f"{name}s"])


def test_eight_bits_come_out_as_in_float64() -> None:
    model = signed(127)
    make_unsigned(model)
    tensors = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    w, r = ((tensors[n] - tensors[f"{n}z"][:, np.newaxis])[0] * tensors[f"{n}s"] for n in ("w", "r"))
    x = np.random.default_rng(0).normal(size=(5, 1, INPUTS)).astype(np.float32).astype(np.float64)
    hidden, cell, frames = np.zeros(HIDDEN), np.zeros(HIDDEN), []
    for frame in x[:, 0]:
        i, o, f, c = np.split(frame @ w + hidden @ r, 4)
        i, o, f = (1 / (1 + np.exp(-gate)) for gate in (i, o, f))
        cell = f * cell + i * np.tanh(c)
        hidden = o * np.tanh(cell)
        frames.append(hidden)
    # activations are rounded to 8 bits while it runs: within 2 % of the largest number, whatever the processor
    np.testing.assert_allclose(run(model)[:, 0, 0], frames, atol=0.02 * np.abs(frames).max())


def test_unsigned_weights_stay() -> None:
    model = signed(100)
    make_unsigned(model)
    once = model.SerializeToString(deterministic=True)
    assert make_unsigned(model) == 0
    assert model.SerializeToString(deterministic=True) == once


def test_two_lstms_that_share_weights_are_turned_once() -> None:
    model = signed(90)
    node = model.graph.node.add()
    node.CopyFrom(model.graph.node[0])
    node.output[0] = "again"
    model.graph.output.add().CopyFrom(model.graph.output[0])
    model.graph.output[1].name = "again"
    assert make_unsigned(model) == 2
    assert run(model).std() > 0.01
