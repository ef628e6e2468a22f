"""Graphs that ONNX Runtime's quantiser converts wrongly or not at all are quantised correctly, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper, parser

from artifacts.errors import StepError
from artifacts.steps import quantize_dynamic
from artifacts.steps.quantize_dynamic import Params
from quantised_models import Array, Metrics, onnx_file

GRAPH = '<ir_version: 8, opset_import: ["" : 17]> g '
BRANCHES = """If (c) <
  then_branch = one () => (float[B,8] p) { p = Tanh(h) },
  else_branch = two () => (float[B,8] q) { q = Sigmoid(h) }
>"""


def written(folder: Path, text: str, *, ir_version: int = 8, **weights: tuple[int, ...]) -> Path:
    """A folder with the model of this text, with random weights of these shapes."""
    folder.mkdir()
    model = parser.parse_model(text)
    model.ir_version = ir_version
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, folder / "model.onnx")
    return folder


def quantize(model: Path, out: Path, **params: Any) -> tuple[Path, Metrics]:
    out.mkdir()
    return out, quantize_dynamic.run(out, Params(**params), model=model)


def check_numbers(folder: Path, source: Path) -> None:
    sessions = [onnxruntime.InferenceSession(onnx_file(model)) for model in (folder, source)]
    rng = np.random.default_rng(1)
    feeds: dict[str, Array] = {}
    for given in sessions[1].get_inputs():
        shape = [size if isinstance(size, int) else 4 for size in given.shape]
        numbers = {"tensor(float)": rng.normal(size=shape).astype(np.float32), "tensor(bool)": np.ones(shape, bool)}
        feeds[given.name] = numbers.get(given.type, np.ones(shape, np.int64))
    (found,), (expected,) = (session.run(["y"], feeds) for session in sessions)
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    "nodes",
    [
        "h = Gemm <transB = 1> (x, w) y = Gemm <transB = 1> (h, w)",
        "h = Gemm <transB = 1> (x, w) y = MatMul(h, w)",
        "h = Gemm <transB = 1> (x, w) e = Gather(w, i) y = Add(h, e)",
    ],
)
def test_a_weight_that_a_gemm_shares_is_transposed_for_it_alone(tmp_path: Path, nodes: str, per_channel: bool) -> None:
    text = f"{GRAPH}(float[4,8] x, int64[4,1] at) => (float[4,8] y) {{ i = Squeeze(at) {nodes} }}"
    source = written(tmp_path / "source", text, w=(8, 8))
    out, metrics = quantize(source, tmp_path / "out", per_channel=per_channel)
    assert metrics["weights"] == 2
    check_numbers(out, source)


@pytest.mark.parametrize("per_channel", [False, True])
def test_lstms_that_share_weights_are_quantised_alike(tmp_path: Path, per_channel: bool) -> None:
    text = """(float[T,B,8] x) => (float[T,1,B,8] y) {
      a = LSTM <hidden_size = 8> (x, w, r)
      b = LSTM <hidden_size = 8, direction = "reverse"> (x, w, r)
      y = Add(a, b)
    }"""
    source = written(tmp_path / "source", GRAPH + text, w=(1, 32, 8), r=(1, 32, 8))
    out, metrics = quantize(source, tmp_path / "out", per_channel=per_channel)
    assert (metrics["nodes_DynamicQuantizeLSTM"], metrics["weights"]) == (2, 4)
    check_numbers(out, source)


def test_a_subgraph_may_consume_the_output_of_a_quantised_node(tmp_path: Path) -> None:
    text = f"(float[B,8] x, bool c) => (float[B,8] y) {{ h = MatMul(x, w) y = {BRANCHES} }}"
    source = written(tmp_path / "source", GRAPH + text, w=(8, 8))
    out, metrics = quantize(source, tmp_path / "out")
    assert metrics["nodes_MatMulInteger"] == 1
    check_numbers(out, source)


def test_a_gather_that_only_a_subgraph_consumes_is_refused_until_it_is_excluded(tmp_path: Path) -> None:
    text = f"(int64[B] i, bool c) => (float[B,8] y) {{ h = Gather(t, i) z = {BRANCHES} y = MatMul(z, w) }}"
    source = written(tmp_path / "source", GRAPH + text, t=(40, 8), w=(8, 8))
    with pytest.raises(StepError, match=r"model\.onnx: ONNX Runtime loses values .*'h'") as caught:
        quantize(source, tmp_path / "refused")
    assert caught.value.fix == "name the nodes that produce them in nodes_to_exclude"
    out, _ = quantize(source, tmp_path / "out", nodes_to_exclude=("h",))
    check_numbers(out, source)


def test_a_gather_without_consumers_does_not_matter(tmp_path: Path) -> None:
    text = "(float[B,8] x, int64[B] i) => (float[B,8] y) { y = MatMul(x, w) dead = Gather(t, i) }"
    source = written(tmp_path / "source", GRAPH + text, w=(8, 8), t=(40, 8))
    out, metrics = quantize(source, tmp_path / "out")
    assert metrics["weights"] == 1
    check_numbers(out, source)


def test_sparse_weights_are_refused(tmp_path: Path) -> None:
    source = written(
        tmp_path / "source", GRAPH + "(float[B,2] x) => (float[B,2] y) { h = MatMul(x, w) y = MatMul(h, s) }", w=(2, 2)
    )
    model = onnx.load(onnx_file(source))
    values, places = helper.make_tensor("s", 1, [1], [2.0]), helper.make_tensor("places", 7, [1], [3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [2, 2]))
    onnx.save(model, onnx_file(source))
    with pytest.raises(StepError, match=r"model\.onnx: weight 's' is sparse"):
        quantize(source, tmp_path / "out")


def test_an_old_file_whose_weights_are_inputs_is_quantised_too(tmp_path: Path) -> None:
    text = "(float[B,8] x, float[8,8] w, float[8] b) => (float[B,8] y) { y = Gemm(x, w, b) }"
    source = written(tmp_path / "source", GRAPH.replace("17", "11") + text, ir_version=3, w=(8, 8), b=(8,))
    out, metrics = quantize(source, tmp_path / "out")
    assert metrics["weights"] == 1
    check_numbers(out, source)


def test_an_excluded_gemm_stays_float(tmp_path: Path) -> None:
    text = GRAPH + "(float[B,64] x) => (float[B,64] y) { h = Gemm(x, w, b) y = MatMul(h, v) }"
    source = written(tmp_path / "source", text, w=(64, 64), b=(64,), v=(64, 64))
    out, metrics = quantize(source, tmp_path / "out", nodes_to_exclude=("h",))
    assert (metrics["nodes_MatMulInteger"], metrics["nodes_left_float"]) == (1, 1)
    before, after = (onnx.load(onnx_file(folder)) for folder in (source, out))
    weights = [{tensor.name: tensor.raw_data for tensor in model.graph.initializer} for model in (before, after)]
    assert weights[0]["w"] == weights[1]["w"]
    check_numbers(out, source)
