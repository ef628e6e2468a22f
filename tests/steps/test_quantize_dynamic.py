"""Weights become 8 bits, outputs stay near, and a model that was not quantised or became wrong is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.graph.model_file import consolidate, load_graph, save_graph
from artifacts.steps import convert_fp16, quantize_dynamic
from artifacts.steps.quantize_dynamic import Params
from quantised_models import (
    Array,
    Features,
    Metrics,
    cosine_error,
    digests,
    encode,
    histogram,
    onnx_file,
    product_model,
    run_elsewhere,
)


@pytest.fixture(scope="module")
def int8_encoder(encoder_fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    return quantize(encoder_fp32, tmp_path_factory.mktemp("int8"))


def quantize(model: Path, out: Path, **params: Any) -> tuple[Path, Metrics]:
    out.mkdir(exist_ok=True)
    return out, quantize_dynamic.run(out, Params(**params), model=model)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("{}", True),
        ('{"weight_type": "QInt8", "per_channel": true, "reduce_range": true}', True),
        ('{"op_types": ["Conv", "MatMul"], "nodes_to_exclude": ["/layers.0/MatMul"]}', True),
        ('{"weight_type": "QInt8"}', False),
        ('{"weight_type": "QInt4"}', False),
        ('{"op_types": []}', False),
        ('{"op_types": ["Softmax"]}', False),
        ('{"op_types": "MatMul"}', False),
        ('{"per_channel": 1}', False),
        ('{"per_chanel": true}', False),
    ],
)
def test_params(text: str, good: bool) -> None:
    if good:
        Params.model_validate_json(text)
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(text)


def test_every_weight_matmul_of_the_encoder_is_quantised_and_no_convolution(
    encoder_fp32: Path, int8_encoder: tuple[Path, Metrics]
) -> None:
    folder, metrics = int8_encoder
    before, after = histogram(encoder_fp32), histogram(folder)
    weights = {tensor.name for tensor in onnx.load(onnx_file(encoder_fp32)).graph.initializer}
    nodes = [
        n for n in onnx.load(onnx_file(encoder_fp32)).graph.node if n.op_type == "MatMul" and n.input[1] in weights
    ]
    assert metrics["nodes_MatMulInteger"] == after["MatMulInteger"] == len(nodes) > 0
    assert metrics["weights"] == len(nodes)
    assert metrics["nodes_left_float"] == after["MatMul"] == before["MatMul"] - len(nodes)
    assert after["Conv"] == before["Conv"]
    assert "ConvInteger" not in after
    assert metrics["bytes_after"] == onnx_file(folder).stat().st_size < 0.75 * onnx_file(encoder_fp32).stat().st_size


def test_int8_outputs_are_near_those_of_fp32(
    encoder_fp32: Path, int8_encoder: tuple[Path, Metrics], speech_features: Features
) -> None:
    found, expected = encode(int8_encoder[0], speech_features), encode(encoder_fp32, speech_features)
    for (_, found_lengths), (_, lengths) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(found_lengths, lengths)
    assert cosine_error(found, expected) < 5e-4


def test_convolutions_stay_float_because_their_error_is_the_largest(
    encoder_fp32: Path, int8_encoder: tuple[Path, Metrics], speech_features: Features, tmp_path: Path
) -> None:
    features = speech_features[:4]
    expected = encode(encoder_fp32, features)
    convolved, metrics = quantize(encoder_fp32, tmp_path / "out", op_types=("MatMul", "Conv"))
    assert int(metrics["nodes_ConvInteger"]) > 0
    without = cosine_error(encode(int8_encoder[0], features), expected)
    assert cosine_error(encode(convolved, features), expected) > 4 * without


@pytest.mark.parametrize("weights", [{}, {"weight_type": "QInt8", "reduce_range": True}], ids=["QUInt8", "QInt8"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_decoder_joint_is_quantised_whole(
    decoder_joint_fp32: Path, tmp_path: Path, weights: dict[str, Any], per_channel: bool
) -> None:
    out, metrics = quantize(decoder_joint_fp32, tmp_path / "out", **weights, per_channel=per_channel)
    layers = histogram(decoder_joint_fp32)["LSTM"]
    assert (metrics["nodes_DynamicQuantizeLSTM"], metrics["nodes_Gather"]) == (layers, 1)
    assert (metrics["weights"], metrics["nodes_left_float"]) == (2 * layers + 1 + 3, 0)
    assert int(metrics["bytes_after"]) < 0.35 * int(metrics["bytes_before"])
    sessions = [onnxruntime.InferenceSession(onnx_file(folder)) for folder in (out, decoder_joint_fp32)]
    inputs = {given.name: given for given in sessions[0].get_inputs()}
    assert {n: (v.type, v.shape) for n, v in inputs.items()} == {
        v.name: (v.type, v.shape) for v in sessions[1].get_inputs()
    }
    feeds = {name: feed(given.shape, given.type) for name, given in inputs.items()}
    levels = 64 if weights.get("reduce_range") else 127
    for found, expected in zip(*(session.run(None, feeds) for session in sessions), strict=True):
        # Seven steps of the weights; where sums saturate it is fifty. The integers are exact, so on every processor.
        np.testing.assert_allclose(found, expected, atol=7 / levels * np.abs(expected).max())


def test_signed_weights_of_8_bits_are_refused_with_the_reason() -> None:
    with pytest.raises(ValidationError, match="QInt8 needs reduce_range: true: 8-bit signed weights saturate"):
        Params(weight_type="QInt8")


@pytest.mark.parametrize("weights", [{}, {"weight_type": "QInt8", "reduce_range": True}], ids=["QUInt8", "QInt8"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_no_weight_that_is_multiplied_saturates_on_any_processor(
    decoder_joint_fp32: Path, tmp_path: Path, weights: dict[str, Any], per_channel: bool
) -> None:
    out, _ = quantize(decoder_joint_fp32, tmp_path / "out", **weights, per_channel=per_channel)
    model = onnx.load(onnx_file(out))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    multiplied = {"MatMulInteger": (1,), "DynamicQuantizeLSTM": (1, 2)}
    products = [tensors[node.input[i]] for node in model.graph.node for i in multiplied.get(node.op_type, ())]
    assert len(products) == 3 + 2 * histogram(decoder_joint_fp32)["LSTM"]
    for weight in products:
        # two products of a uint8 with a signed weight are added in 16 bits
        assert weight.dtype == np.uint8 or 2 * 255 * np.abs(weight.astype(int)).max() < 2**15


def feed(shape: list[int | str], dtype: str) -> Array:
    sizes = [size if isinstance(size, int) else 1 for size in shape]
    if "int" in dtype:
        return np.ones(sizes, dtype.removeprefix("tensor(").removesuffix(")"))
    return np.random.default_rng(0).standard_normal(sizes).astype(np.float32)


def test_excluded_nodes_stay_as_they_were(encoder_fp32: Path, tmp_path: Path) -> None:
    model = onnx.load(onnx_file(encoder_fp32))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = next(node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights)
    out, _ = quantize(encoder_fp32, tmp_path / "out", nodes_to_exclude=(kept.name,))
    after = onnx.load(onnx_file(out))
    assert kept in after.graph.node
    assert weights[kept.input[1]] in after.graph.initializer


def test_channels_get_own_scales(encoder_fp32: Path, tmp_path: Path) -> None:
    out, _ = quantize(encoder_fp32, tmp_path / "out", per_channel=True, weight_type="QInt8", reduce_range=True)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(onnx_file(out)).graph.initializer}
    names = [name for name in tensors if name.endswith("_quantized")]
    assert names
    for name in names:
        assert tensors[name].dtype == np.int8
        assert np.abs(tensors[name].astype(np.int16)).max() <= 64
        assert tensors[name.replace("_quantized", "_scale")].shape == tensors[name].shape[-1:]


def test_nothing_of_this_machine_or_the_quantiser_is_in_the_file(
    encoder_fp32: Path, int8_encoder: tuple[Path, Metrics]
) -> None:
    model = onnx.load(onnx_file(int8_encoder[0]))
    assert list(model.metadata_props) == list(onnx.load(onnx_file(encoder_fp32)).metadata_props)
    assert not model.graph.value_info
    data = onnx_file(int8_encoder[0]).read_bytes()
    assert tempfile.gettempdir().encode() not in data
    assert str(encoder_fp32.parent).encode() not in data


def test_metadata_that_consumers_read_is_kept(tmp_path: Path) -> None:
    source = product_model(tmp_path / "source")
    model = load_graph(onnx_file(source))
    helper.set_model_props(model, {"vocab_size": "64"})
    onnx_file(source).unlink()
    save_graph(model, source / "model.onnx")
    out, _ = quantize(source, tmp_path / "out")
    assert {prop.key: prop.value for prop in onnx.load(onnx_file(out)).metadata_props} == {"vocab_size": "64"}


def test_the_bytes_depend_on_nothing_but_the_model_and_its_values(
    encoder_fp32: Path, int8_encoder: tuple[Path, Metrics], tmp_path: Path
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    consolidate(onnx_file(encoder_fp32), source / "encoder-model.onnx", external=True)
    before = digests(source)
    run_elsewhere(quantize_dynamic, out, {"model": source})
    assert digests(source) == before
    assert digests(out) == digests(int8_encoder[0])


def test_a_model_without_weights_of_these_types_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="0 nodes quantised of the types LSTM, Gather"):
        quantize(product_model(tmp_path / "source"), tmp_path / "out", op_types=("LSTM", "Gather"))


def test_a_quantised_model_is_refused(int8_encoder: tuple[Path, Metrics], tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"encoder-model\.onnx: quantised already: node '.+' is a "):
        quantize(int8_encoder[0], tmp_path / "out")


def test_an_fp16_model_is_refused(tmp_path: Path) -> None:
    source, half = product_model(tmp_path / "source"), tmp_path / "half"
    half.mkdir()
    convert_fp16.run(half, convert_fp16.Params(), model=source)
    with pytest.raises(StepError, match=r"model\.onnx: has fp16 tensors"):
        quantize(half, tmp_path / "out")


@pytest.mark.parametrize("external", [False, True])
def test_a_weight_in_a_constant_is_quantised_too(tmp_path: Path, external: bool) -> None:
    source, moved = product_model(tmp_path / "source", np.arange(1024).reshape(2, 512)), tmp_path / "moved"
    model = onnx.load(source / "model.onnx")
    constant = helper.make_node("Constant", [], ["w"], value=model.graph.initializer[0])
    del model.graph.initializer[:]
    model.graph.node.insert(0, constant)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 512
    moved.mkdir()
    save_graph(model, moved / "model.onnx", external=external)
    assert (moved / "model.onnx.data").is_file() == external
    out, metrics = quantize(moved, tmp_path / "out")
    assert (metrics["weights"], metrics["nodes_left_float"]) == (1, 0)
    assert (metrics["nodes_MatMulInteger"], histogram(out)["Constant"]) == (1, 0)


def test_an_unknown_node_to_exclude_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"model\.onnx: no node is called 'prodct'") as caught:
        quantize(product_model(tmp_path / "source"), tmp_path / "out", nodes_to_exclude=("prodct",))
    assert caught.value.fix == "did you mean 'product'?"


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([[1, 2], [3, np.inf]], "has NaN or infinity"),
        ([[1, 2], [3, np.nan]], "has NaN or infinity"),
        ([[1e-40, 2e-40], [0, 0]], "quantised to a single number"),
    ],
)
def test_a_weight_that_becomes_wrong_is_refused(tmp_path: Path, numbers: list[list[float]], message: str) -> None:
    with pytest.raises(StepError, match=f"weight 'w': {message}"):
        quantize(product_model(tmp_path / "source", numbers), tmp_path / "out")
