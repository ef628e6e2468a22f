"""Weights become int8, outputs stay near, and a model without weights to quantise is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, parser
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.graph.model_file import consolidate
from artifacts.graph.smoke_run import dummy_inputs
from artifacts.steps import convert_fp16, quantize_weights, round_weights
from artifacts.steps.quantize_weights import Params
from quantised_models import Array, Features, Metrics, cosine_error, digests, onnx_file, product_model, run_elsewhere

MIB = 1 << 20


@pytest.fixture(scope="module")
def small_encoder(encoder_fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    return quantize(encoder_fp32, tmp_path_factory.mktemp("int8"))


def quantize(model: Path, out: Path, **params: Any) -> tuple[Path, Metrics]:
    out.mkdir(exist_ok=True)
    return out, quantize_weights.run(out, Params(**params), model=model)


def session(folder: Path, *, as_written: bool = True) -> onnxruntime.InferenceSession:
    """Literally, weights are dequantised and multiplied in float32; otherwise ONNX Runtime optimises the graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if as_written:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(onnx_file(folder), options, providers=["CPUExecutionProvider"])


def encode(folder: Path, features: Features, *, as_written: bool = True) -> list[list[Array]]:
    run = session(folder, as_written=as_written).run
    return [run(None, {"audio_signal": audio, "length": length}) for audio, length in features]


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("{}", True),
        ('{"per_channel": true, "min_elements": 1024, "nodes_to_exclude": ["/layers.0/MatMul"]}', True),
        ('{"min_elements": 0}', False),
        ('{"min_elements": 1024.0}', False),
        ('{"per_channel": 1}', False),
        ('{"nodes_to_exclude": "product"}', False),
        ('{"bits": 4}', False),
    ],
)
def test_params(text: str, good: bool) -> None:
    if good:
        Params.model_validate_json(text)
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(text)


def test_each_large_tensor_of_the_encoder_takes_a_quarter_of_its_bytes(
    encoder_fp32: Path, small_encoder: tuple[Path, Metrics]
) -> None:
    folder, metrics = small_encoder
    before, after = (onnx.load(onnx_file(path)).graph for path in (encoder_fp32, folder))
    constants = [node.attribute[0].t for node in before.node if node.op_type == "Constant"]
    sizes = [
        int(np.prod(tensor.dims))
        for tensor in (*before.initializer, *constants)
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > 16384
    ]
    ops = Counter(node.op_type for node in after.node)
    assert metrics["tensors"] == ops["DequantizeLinear"] == metrics["DequantizeLinear_after"] == len(sizes) > 20
    assert int(metrics["Constant_before"]) - int(metrics["Constant_after"]) == 1  # the table of positions
    assert sorted(np.prod(t.dims) for t in after.initializer if t.data_type == TensorProto.INT8 and t.dims) == sorted(
        sizes
    )
    assert metrics["bytes_after"] == onnx_file(folder).stat().st_size
    saved = int(metrics["bytes_before"]) - int(metrics["bytes_after"])
    assert 3 * sum(sizes) - 400 * len(sizes) < saved < 3 * sum(sizes)


@pytest.mark.parametrize(("per_channel", "bound"), [(False, 4e-5), (True, 2e-5)])
def test_the_encoder_s_outputs_stay_near(
    encoder_fp32: Path, speech_features: Features, tmp_path: Path, per_channel: bool, bound: float
) -> None:
    out, _ = quantize(encoder_fp32, tmp_path / "out", per_channel=per_channel)
    found, expected = encode(out, speech_features), encode(encoder_fp32, speech_features)
    for (_, found_lengths), (_, lengths) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(found_lengths, lengths)
    assert cosine_error(found, expected) < bound


def test_int8_and_rounded_weights_are_one_model_bit_for_bit(
    encoder_fp32: Path, small_encoder: tuple[Path, Metrics], speech_features: Features, tmp_path: Path
) -> None:
    metrics = round_weights.run(tmp_path, round_weights.Params(), model=encoder_fp32)
    assert metrics["largest_error"] == small_encoder[1]["largest_error"]
    for found, expected in zip(
        encode(small_encoder[0], speech_features[:2]), encode(tmp_path, speech_features[:2]), strict=True
    ):
        np.testing.assert_array_equal(found[0], expected[0], strict=True)


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_decoder_joint_makes_the_same_choices(
    encoder_fp32: Path, decoder_joint_fp32: Path, speech_features: Features, tmp_path: Path, per_channel: bool
) -> None:
    """On each frame of real speech, after the first piece, its likeliest piece or blank is the same."""
    out, metrics = quantize(decoder_joint_fp32, tmp_path / "out", per_channel=per_channel, min_elements=1000)
    assert int(metrics["tensors"]) >= 8  # two layers of LSTM, the embedding and the joint
    assert int(metrics["bytes_after"]) < 0.35 * int(metrics["bytes_before"])
    sessions = [session(folder) for folder in (out, decoder_joint_fp32)]
    feeds = dummy_inputs(sessions[0])
    feeds["encoder_outputs"] = encode(encoder_fp32, speech_features[:1])[0][0]
    feeds["targets"], feeds["target_length"] = np.ones((1, 1), np.int32), np.ones(1, np.int32)
    found, expected = (
        one.run(["outputs"], feeds)[0].reshape(feeds["encoder_outputs"].shape[2], -1) for one in sessions
    )
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.98
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_onnx_runtime_runs_it_as_the_decision_says(
    encoder_fp32: Path, small_encoder: tuple[Path, Metrics], tmp_path: Path
) -> None:
    """docs/decisions/09: MatMuls become MatMulNBits, other weights are dequantised at each run, none is folded."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it warns that such a file is for this machine
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(onnx_file(small_encoder[0]), options, providers=["CPUExecutionProvider"])
    written, run = (onnx.load(path).graph for path in (onnx_file(small_encoder[0]), tmp_path / "optimized.onnx"))
    made = {node.output[0] for node in written.node if node.op_type == "DequantizeLinear"}
    multiplied = sum(node.op_type == "MatMul" and node.input[1] in made for node in written.node)
    ops = Counter(node.op_type for node in run.node)
    assert ops["MatMulNBits"] == multiplied > 15
    assert ops["DequantizeLinear"] == len(made) - multiplied > 0


def test_weights_of_excluded_nodes_stay(encoder_fp32: Path, tmp_path: Path) -> None:
    model = onnx.load(onnx_file(encoder_fp32))
    weights = {tensor.name: tensor for tensor in model.graph.initializer if np.prod(tensor.dims) > 16384}
    kept = next(node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights)
    out, _ = quantize(encoder_fp32, tmp_path / "out", nodes_to_exclude=(kept.name,))
    after = onnx.load(onnx_file(out))
    assert kept in after.graph.node
    assert weights[kept.input[1]] in after.graph.initializer


@pytest.mark.parametrize("external", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_files_keep_their_names_and_form_with_the_same_numbers(
    encoder_fp32: Path, tmp_path: Path, external: bool, per_channel: bool
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    consolidate(onnx_file(encoder_fp32), given / "encoder-model.onnx", external=external)
    out, metrics = quantize(given, tmp_path / "out", per_channel=per_channel)
    data = {"encoder-model.onnx.data"} if external else set()
    assert {path.name for path in out.iterdir()} == {"encoder-model.onnx", *data}
    assert metrics["bytes_after"] == sum(path.stat().st_size for path in out.iterdir())
    other, _ = quantize(encoder_fp32, tmp_path / "other", per_channel=per_channel)
    for folder in (out, other):
        (tmp_path / "one file" / folder.name).mkdir(parents=True)
        consolidate(onnx_file(folder), tmp_path / "one file" / folder.name / "model.onnx", external=False)
    assert digests(tmp_path / "one file" / "out") == digests(tmp_path / "one file" / "other")


@pytest.mark.parametrize("external", [True, False])
def test_the_bytes_depend_on_nothing_but_the_model_and_its_values(
    encoder_fp32: Path, tmp_path: Path, external: bool
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    consolidate(onnx_file(encoder_fp32), source / "encoder-model.onnx", external=external)
    before = digests(source)
    run_elsewhere(quantize_weights, tmp_path / "elsewhere", {"model": source}, per_channel=True)
    assert digests(source) == before
    assert digests(tmp_path / "elsewhere") == digests(quantize(source, tmp_path / "here", per_channel=True)[0])


def test_streaming_never_holds_the_weights(tmp_path: Path) -> None:
    """200 MiB of weights, all but one number in a hole of a sparse file: with what is mapped, below 150 MiB."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) { y = Mul(x, w) }'
    )
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[200 * MIB // 4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="data")
    for folder in ("source", "out"):
        (tmp_path / folder).mkdir()
    (tmp_path / "source" / "encoder-model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "source" / "data").write_bytes(np.float32(1).tobytes())
    os.truncate(tmp_path / "source" / "data", 200 * MIB)
    program = """
import pathlib, sys
from artifacts.steps import quantize_weights as step
step.run(pathlib.Path(sys.argv[2]), step.Params(), model=pathlib.Path(sys.argv[1]))
status = dict(line.split(":") for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "source"), str(tmp_path / "out")]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    written = tmp_path / "out" / "encoder-model.onnx.data"
    assert written.stat().st_size == 50 * MIB
    written.unlink()  # pytest would keep it
    assert peak < 150 * MIB


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([[1, 2], [3, np.inf]], "has NaN or infinity"),
        ([[1, 2], [3, np.nan]], "has NaN or infinity"),
        ([[1e-40, 2e-40], [0, 0]], "all would become one number"),
    ],
)
def test_a_weight_without_levels_is_refused(tmp_path: Path, numbers: list[list[float]], message: str) -> None:
    with pytest.raises(StepError, match=rf"model\.onnx: weight 'w': .*{message}"):
        quantize(product_model(tmp_path / "source", numbers), tmp_path / "out", min_elements=3)


def test_a_uniform_weight_stays_exactly_what_it_is(tmp_path: Path) -> None:
    for number in (0, 0.1, -1e-20):
        source = product_model(tmp_path / f"source {number}", np.full((2, 2), number))
        out, metrics = quantize(source, tmp_path / f"out {number}", min_elements=3)
        assert metrics["largest_error"] == 0
        np.testing.assert_array_equal(
            session(out).run(None, {"x": np.eye(2, dtype=np.float32)})[0], np.full((2, 2), number, np.float32)
        )


def test_a_model_that_cannot_be_quantised_is_refused(small_encoder: tuple[Path, Metrics], tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"encoder-model\.onnx: quantised already: node '.+' is a DequantizeLinear"):
        quantize(small_encoder[0], tmp_path / "twice")
    source = product_model(tmp_path / "source")
    (tmp_path / "half").mkdir()
    convert_fp16.run(tmp_path / "half", convert_fp16.Params(), model=source)
    with pytest.raises(StepError, match=r"model\.onnx: has fp16 tensors"):
        quantize(tmp_path / "half", tmp_path / "from half")
    with pytest.raises(StepError, match=r"model\.onnx: 0 float32 tensors of more than 4 elements"):
        quantize(source, tmp_path / "small", min_elements=4)
    with pytest.raises(StepError, match=r"model\.onnx: no node is called 'prodct'") as caught:
        quantize(source, tmp_path / "excluded", min_elements=3, nodes_to_exclude=("prodct",))
    assert caught.value.fix == "did you mean 'product'?"
    old = product_model(tmp_path / "old", opset=12)
    quantize(old, tmp_path / "whole", min_elements=3)
    with pytest.raises(StepError, match=r"model\.onnx: opset 12 has no DequantizeLinear with a scale for each channel"):
        quantize(old, tmp_path / "by channel", min_elements=3, per_channel=True)
