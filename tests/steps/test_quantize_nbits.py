"""Weights become blocks of 8 or 4 bits as ONNX Runtime makes them, and outputs stay near."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper, parser
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.graph.model_file import consolidate, find_model, load_graph
from artifacts.graph.quantization.weight_matmuls import weight_matmuls
from artifacts.steps import convert_fp16, quantize_dynamic, quantize_nbits
from artifacts.steps.quantize_nbits import Params
from quantised_models import Array, Features, Metrics, cosine_error, digests, encode, product_model, run_elsewhere


def quantize(model: Path, out: Path, **params: Any) -> tuple[Path, Metrics]:
    out.mkdir(exist_ok=True)
    return out, quantize_nbits.run(out, Params(**params), model=model)


@pytest.fixture(scope="module")
def encoder_8(encoder_fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    return quantize(encoder_fp32, tmp_path_factory.mktemp("8 bits"))


@pytest.fixture(scope="module")
def encoder_4(encoder_fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    return quantize(encoder_fp32, tmp_path_factory.mktemp("4 bits"), bits=4)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{}", None),
        ('{"bits": 4, "block_size": 128, "symmetric": false, "accuracy_level": 0}', None),
        ('{"nodes_to_exclude": ["/layers.0/MatMul"]}', None),
        ('{"bits": 3}', "Input should be 4 or 8"),
        ('{"bits": "8"}', "Input should be 4 or 8"),
        ('{"bits": 16}', "Input should be 4 or 8"),
        ('{"block_size": 8}', "Input should be 16, 32, 64, 128 or 256"),
        ('{"block_size": 48}', "Input should be 16, 32, 64, 128 or 256"),
        ('{"block_size": 512}', "Input should be 16, 32, 64, 128 or 256"),
        ('{"symmetric": 1}', "valid boolean"),
        ('{"accuracy_level": 5}', "less than or equal to 4"),
        ('{"accuracy_level": true}', "valid integer"),
        ('{"nodes_to_exclude": "MatMul"}', "valid array"),
        ('{"bit": 8}', "not permitted"),
    ],
)
def test_params(text: str, complaint: str | None) -> None:
    if complaint is None:
        Params.model_validate_json(text)
    else:
        with pytest.raises(ValidationError, match=complaint):
            Params.model_validate_json(text)


def test_the_defaults_are_those_of_the_published_encoder() -> None:
    params = Params()
    assert (params.bits, params.block_size, params.symmetric, params.accuracy_level) == (8, 32, True, 4)


def test_every_weight_of_the_encoder_is_quantised_and_products_of_activations_are_not(
    encoder_fp32: Path, encoder_8: tuple[Path, Metrics]
) -> None:
    folder, metrics = encoder_8
    before, after = load_graph(find_model(encoder_fp32)), load_graph(find_model(folder))
    count = len(weight_matmuls(before))
    matmuls = sum(node.op_type == "MatMul" for node in before.graph.node)
    assert (metrics["nodes"], metrics["weights"], metrics["nodes_left_float"]) == (count, count, matmuls - count)
    assert count > 0 < matmuls - count
    assert (metrics["MatMul_before"], metrics["MatMul_after"]) == (matmuls, matmuls - count)
    assert (metrics["MatMulNBits_before"], metrics["MatMulNBits_after"]) == (0, count)
    assert sum(key.endswith("_before") for key in metrics) == 3  # of these and of the bytes
    values = {(a.name, a.i) for node in after.graph.node if node.domain for a in node.attribute if a.name not in "KN"}
    assert values == {("bits", 8), ("block_size", 32), ("accuracy_level", 4)}
    assert not weight_matmuls(after)
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert list(after.metadata_props) == list(before.metadata_props)
    assert metrics["bytes_after"] == find_model(folder).stat().st_size
    assert [path.name for path in folder.iterdir()] == ["encoder-model.onnx"]


def test_the_weights_take_nine_bits_or_five(
    encoder_fp32: Path, encoder_8: tuple[Path, Metrics], encoder_4: tuple[Path, Metrics]
) -> None:
    model = load_graph(find_model(encoder_fp32))
    numbers = sum(int(np.prod(found.sizes)) for found in weight_matmuls(model))
    for metrics, bits in ((encoder_8[1], 9), (encoder_4[1], 5)):
        saved = int(metrics["bytes_before"]) - int(metrics["bytes_after"])
        assert saved == pytest.approx(numbers * (32 - bits) / 8, rel=0.01)


def test_eight_bits_are_nearer_to_fp32_than_dynamic_int8(
    encoder_fp32: Path, encoder_8: tuple[Path, Metrics], speech_features: Features, tmp_path: Path
) -> None:
    expected = encode(encoder_fp32, speech_features)
    found = encode(encoder_8[0], speech_features)
    for (_, found_lengths), (_, lengths) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(found_lengths, lengths)
    assert cosine_error(found, expected) < 5e-5
    quantize_dynamic.run(tmp_path, quantize_dynamic.Params(), model=encoder_fp32)
    assert cosine_error(found, expected) < 0.5 * cosine_error(encode(tmp_path, speech_features), expected)


def test_four_bits_have_a_larger_error_within_bounds(
    encoder_fp32: Path, encoder_8: tuple[Path, Metrics], encoder_4: tuple[Path, Metrics], speech_features: Features
) -> None:
    features = speech_features[:5]
    expected, found = encode(encoder_fp32, features), encode(encoder_4[0], features)
    for (_, found_lengths), (_, lengths) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(found_lengths, lengths)
    assert 10 * cosine_error(encode(encoder_8[0], features), expected) < cosine_error(found, expected) < 3e-3


def test_a_loud_frame_does_not_change_other_frames(
    encoder_fp32: Path, speech_features: Features, tmp_path: Path
) -> None:
    """With `accuracy_level` 4 an activation has a scale for each block, not one for all."""
    weight = weight_matmuls(load_graph(find_model(encoder_fp32)))[0].weight
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[T,512] x) => (float[T,96] y) { y = MatMul(x, w) }'
    model = parser.parse_model(text)
    model.graph.initializer.add().CopyFrom(weight)
    model.graph.initializer[0].name = "w"
    (tmp_path / "source").mkdir()
    onnx.save(model, tmp_path / "source" / "model.onnx")
    out, _ = quantize(tmp_path / "source", tmp_path / "out")
    session = onnxruntime.InferenceSession(find_model(out))
    frames = np.concatenate([audio[0].T for audio, _ in speech_features[:3]])
    frames = frames[: len(frames) // 4 * 4].reshape(-1, 512)
    (alone,) = session.run(None, {"x": frames})
    (beside,) = session.run(None, {"x": np.concatenate([frames, 1000 * frames[:1]])})
    np.testing.assert_array_equal(beside[:-1], alone)


def test_the_joint_is_quantised_and_the_predictor_stays(decoder_joint_fp32: Path, tmp_path: Path) -> None:
    out, metrics = quantize(decoder_joint_fp32, tmp_path / "out")
    ops = [node.op_type for node in load_graph(find_model(out)).graph.node]
    assert (metrics["nodes"], metrics["nodes_left_float"], ops.count("LSTM")) == (3, 0, 2)
    sessions = [onnxruntime.InferenceSession(find_model(folder)) for folder in (out, decoder_joint_fp32)]
    given = {value.name: value for value in sessions[0].get_inputs()}
    assert [(v.name, v.type) for v in given.values()] == [(v.name, v.type) for v in sessions[1].get_inputs()]
    feeds = {name: feed(value.shape, value.type) for name, value in given.items()}
    for found, expected in zip(*(session.run(None, feeds) for session in sessions), strict=True):
        np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def feed(shape: list[int | str], dtype: str) -> Array:
    sizes = [size if isinstance(size, int) else 1 for size in shape]
    if "int" in dtype:
        return np.ones(sizes, dtype.removeprefix("tensor(").removesuffix(")"))
    return np.random.default_rng(0).standard_normal(sizes).astype(np.float32)


def test_excluded_nodes_stay_as_they_were(encoder_fp32: Path, tmp_path: Path) -> None:
    kept = weight_matmuls(load_graph(find_model(encoder_fp32)))[3]
    out, metrics = quantize(encoder_fp32, tmp_path / "out", nodes_to_exclude=(kept.node.name,))
    after = load_graph(find_model(out))
    assert kept.node in after.graph.node
    assert kept.weight in after.graph.initializer
    assert len(weight_matmuls(after)) == 1
    assert metrics["nodes_left_float"] == metrics["MatMul_after"]


def test_a_weight_in_a_constant_is_quantised_too(tmp_path: Path) -> None:
    source = product_model(tmp_path / "source")
    model = onnx.load(source / "model.onnx")
    constant = onnx.helper.make_node("Constant", [], ["w"], value=model.graph.initializer[0])
    model.graph.node.insert(0, constant)
    del model.graph.initializer[:]
    onnx.save(model, source / "model.onnx")
    out, metrics = quantize(source, tmp_path / "out")
    assert metrics["weights"] == 1
    assert [node.op_type for node in load_graph(find_model(out)).graph.node] == ["MatMulNBits"]


def test_the_bytes_depend_on_nothing_but_the_model_and_its_values(
    encoder_fp32: Path, encoder_8: tuple[Path, Metrics], tmp_path: Path
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    consolidate(find_model(encoder_fp32), source / "encoder-model.onnx", external=True)
    before = digests(source)
    run_elsewhere(quantize_nbits, out, {"model": source})
    assert digests(source) == before
    assert digests(out) == digests(encoder_8[0])
    assert str(tmp_path).encode() not in find_model(out).read_bytes()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([[1, 2], [3, np.inf]], "has NaN or infinity"),
        ([[1, 2], [3, np.nan]], "has NaN or infinity"),
        ([[1e-40, 2e-40], [0, 0]], "quantised with the scale -"),
    ],
)
def test_a_weight_without_a_valid_scale_is_refused(tmp_path: Path, numbers: list[list[float]], message: str) -> None:
    with pytest.raises(StepError, match=rf"model\.onnx: weight 'w': {message}"):
        quantize(product_model(tmp_path / "source", numbers), tmp_path / "out")


def test_a_model_that_does_not_run_to_finite_numbers_itself_is_quantised_and_told(tmp_path: Path) -> None:
    source = product_model(tmp_path / "source")
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[B,2] x) => (float[B,2] y)'
    body = "<float zero = {0}, float[2,2] w = {1, 2, 3, 4}> { a = MatMul(x, w) y = Div(a, zero) }"
    onnx.save(parser.parse_model(head + body), source / "model.onnx")
    _, metrics = quantize(source, tmp_path / "out")
    assert metrics["smoke_run"] == "not run: model.onnx: output 'y' is not finite"


def test_a_model_too_large_for_one_file_gets_a_data_file(
    encoder_fp32: Path, encoder_8: tuple[Path, Metrics], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("artifacts.graph.model_file.INLINE_LIMIT_BYTES", 1_000_000)
    out, metrics = quantize(encoder_fp32, tmp_path / "out")
    assert {path.name for path in out.iterdir()} == {"encoder-model.onnx", "encoder-model.onnx.data"}
    assert tensors(out) == tensors(encoder_8[0])
    assert metrics["bytes_after"] == sum(path.stat().st_size for path in out.iterdir())


def tensors(folder: Path) -> dict[str, bytes]:
    graph = onnx.load(find_model(folder)).graph
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer}


def test_a_model_without_weights_to_quantise_is_refused(tmp_path: Path) -> None:
    source = product_model(tmp_path / "source")
    with pytest.raises(StepError, match=r"model\.onnx: 0 MatMuls quantised"):
        quantize(source, tmp_path / "out", nodes_to_exclude=("product",))
    with pytest.raises(StepError, match=r"no node is called 'prodct'") as caught:
        quantize(source, tmp_path / "out", nodes_to_exclude=("prodct",))
    assert caught.value.fix == "did you mean 'product'?"


def test_a_model_that_is_quantised_or_halved_already_is_refused(
    encoder_8: tuple[Path, Metrics], tmp_path: Path
) -> None:
    half = tmp_path / "half"
    half.mkdir()
    convert_fp16.run(half, convert_fp16.Params(), model=product_model(tmp_path / "source"))
    for source, message in (
        (encoder_8[0], "quantised already: node '.+_Q8' is a MatMulNBits"),
        (half, "has fp16 tensors"),
    ):
        with pytest.raises(StepError, match=message):
            quantize(source, tmp_path / "out")
