"""A model is converted to float16 within bounds, by either converter to the same numbers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper, parser
from onnxconverter_common.float16 import DEFAULT_OP_BLOCK_LIST
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.graph.model_file import consolidate, find_model, load_graph
from artifacts.graph.tensors import iter_tensors
from artifacts.steps import convert_fp16, fix_fp16_casts

Array = npt.NDArray[Any]
MIB = 1 << 20
CONVERTERS = ["streaming", "onnxconverter-common"]

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
encoder (float[4, 256] x) => (float[4, 256] y)
<float[4, 256] a, float[4, 256] b, float[4, 256] c>
{
  a = MatMul(x, weight)
  table = Constant()
  b = Max(a, floor)
  c = Add(b, table)
  y = Mul(c, extremes)
}
"""
EXTREMES = [1e-9, -1e-9, 0, 1e-7, 5e4, -7e4, 1e4, 1]
HALVED = [1e-7, -1e-7, 0, 1e-7, 1e4, -1e4, 1e4, 1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model without Casts, whose `floor` feeds a node that is blocked by default."""
    random = np.random.default_rng(0)
    model = parser.parse_model(GRAPH)
    for node in model.graph.node:
        node.name = node.output[0]
    weights = {
        "weight": random.standard_normal((256, 256), np.float32),
        "floor": np.full((4, 256), -1e-9, np.float32),
        "extremes": np.tile(np.array(EXTREMES, np.float32), 32),
    }
    for name, values in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    table = numpy_helper.from_array(random.standard_normal((4, 256), np.float32))
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("value", table))
    folder = tmp_path / "source"
    folder.mkdir()
    onnx.save(model, folder / "encoder-model.onnx")
    return folder


def convert(model: Path, out: Path, **params: Any) -> dict[str, float | int | str]:
    out.mkdir()
    return convert_fp16.run(out, convert_fp16.Params(**params), model=model)


def tensors(folder: Path) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in iter_tensors(onnx.load(find_model(folder)))}


def outputs(folder: Path, **inputs: Array) -> list[Array]:
    session = onnxruntime.InferenceSession(find_model(folder), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_defaults_are_those_of_the_library() -> None:
    params = convert_fp16.Params()
    assert params.converter == "streaming"
    assert (params.min_positive_val, params.max_finite_val, params.keep_io_types) == (1e-7, 1e4, True)
    assert sorted(convert_fp16.FLOAT32_OPS) == sorted(DEFAULT_OP_BLOCK_LIST)
    assert params.keep_fp32_ops == params.keep_fp32_nodes == ()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"converter": "onnxconverter-common", "keep_fp32_ops": ["Softmax"], "keep_fp32_nodes": ["a", "b"]}, None),
        ({"min_positive_val": 0, "max_finite_val": 65504, "keep_io_types": False}, None),
        ({"keep_fp32_ops": ["Cast"]}, None),
        ({"converter": "onnxconverter-common", "keep_fp32_ops": ["Cast"]}, "never ends"),
        ({"converter": "onnxruntime"}, "'streaming' or 'onnxconverter-common'"),
        ({"min_positive_val": -1e-7}, "greater than or equal to 0"),
        ({"min_positive_val": "small"}, "valid number"),
        ({"max_finite_val": 65505}, "less than or equal to 65504"),
        ({"min_positive_val": 0.9999, "max_finite_val": 1}, "the same number in float16"),
        ({"keep_fp32_ops": "Softmax"}, "valid array"),
        ({"keep_io_types": "yes"}, "valid boolean"),
        ({"block": []}, "not permitted"),
    ],
)
def test_params_out_of_bounds_are_refused(given: dict[str, Any], complaint: str | None) -> None:
    if complaint is None:
        convert_fp16.Params.model_validate_json(json.dumps(given))
    else:
        with pytest.raises(ValidationError, match=complaint):
            convert_fp16.Params.model_validate_json(json.dumps(given))


@pytest.mark.parametrize("converter", CONVERTERS)
def test_weights_and_constants_are_halved_within_bounds_and_blocked_ones_are_not(
    source: Path, tmp_path: Path, converter: str
) -> None:
    metrics = convert(source, tmp_path / "out", converter=converter)
    before, after = tensors(source), tensors(tmp_path / "out")
    assert metrics["tensors"] == 3
    np.testing.assert_array_equal(after["floor"], before["floor"], strict=True)
    np.testing.assert_array_equal(after["weight"], before["weight"].astype(np.float16), strict=True)
    np.testing.assert_array_equal(after["extremes"], np.tile(np.array(HALVED, np.float16), 32), strict=True)
    np.testing.assert_array_equal(after[""], before[""].astype(np.float16), strict=True)
    if converter == "streaming":
        assert (metrics["casts_inserted"], metrics["values_raised"], metrics["values_lowered"]) == (4, 64, 64)


@pytest.mark.parametrize("converter", CONVERTERS)
def test_inputs_and_outputs_keep_their_type_with_keep_io_types(source: Path, tmp_path: Path, converter: str) -> None:
    x = np.random.default_rng(1).standard_normal((4, 256), np.float32)
    (expected,) = outputs(source, x=x)
    convert(source, tmp_path / "kept", converter=converter)
    (found,) = outputs(tmp_path / "kept", x=x)
    assert found.dtype == np.float32
    usual = np.tile(np.abs(EXTREMES) == 1, 32)
    np.testing.assert_allclose(found[:, usual], expected[:, usual], atol=0.05)
    convert(source, tmp_path / "turned", converter=converter, keep_io_types=False)
    assert outputs(tmp_path / "turned", x=x.astype(np.float16))[0].dtype == np.float16


def test_both_converters_compute_the_same_bit_for_bit(source: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(1).standard_normal((4, 256), np.float32)
    found = []
    for converter in CONVERTERS:
        convert(source, tmp_path / converter, converter=converter)
        found.append(outputs(tmp_path / converter, x=x)[0])
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("converter", CONVERTERS)
@pytest.mark.parametrize("external", [True, False])
def test_the_model_keeps_its_name_and_its_form(source: Path, tmp_path: Path, converter: str, external: bool) -> None:
    given = tmp_path / "given"
    given.mkdir()
    consolidate(find_model(source), given / "encoder-model.onnx", external=external)
    convert(given, tmp_path / "out", converter=converter)
    convert(source, tmp_path / "from inline", converter=converter)
    data = {"encoder-model.onnx.data"} if external else set()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"encoder-model.onnx", *data}
    for name, values in tensors(tmp_path / "from inline").items():
        np.testing.assert_array_equal(tensors(tmp_path / "out")[name], values, strict=True)


@pytest.mark.parametrize("converter", CONVERTERS)
def test_the_same_bytes_come_out_of_another_process(source: Path, tmp_path: Path, converter: str) -> None:
    program = """
import pathlib, sys
from artifacts.steps import convert_fp16 as step
step.run(pathlib.Path(sys.argv[2]), step.Params(converter=sys.argv[3]), model=pathlib.Path(sys.argv[1]))
"""
    found = []
    for seed in ("1", "2"):
        out = tmp_path / f"with a hash seed of {seed}"
        out.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed}
        command = [sys.executable, "-c", program, str(source), str(out), converter]
        subprocess.run(command, check=True, env=environment, cwd=out)
        found.append(digests(out))
    assert found[0] == found[1]


@pytest.mark.parametrize("converter", CONVERTERS)
def test_a_model_that_cannot_be_converted_is_refused_and_nothing_is_written(
    source: Path, tmp_path: Path, converter: str
) -> None:
    convert(source, tmp_path / "once", converter=converter)
    with pytest.raises(StepError, match="has float16 values already"):
        convert(tmp_path / "once", tmp_path / "twice", converter=converter)
    everything = ("MatMul", "Max", "Add", "Mul", "Constant")
    with pytest.raises(StepError, match="0 tensors converted to float16"):
        convert(source, tmp_path / "blocked", converter=converter, keep_fp32_ops=everything)
    os.truncate(find_model(source), 1000)
    with pytest.raises(StepError, match="truncated"):
        convert(source, tmp_path / "from a piece", converter=converter)
    assert not any(file for name in ("twice", "blocked", "from a piece") for file in (tmp_path / name).iterdir())


def test_streaming_never_holds_the_weights(tmp_path: Path) -> None:
    """200 MiB of weights in a hole of a sparse file. Pages without a file are the process's own memory."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) { y = Mul(x, w) }'
    )
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[200 * MIB // 4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="data")
    for folder in ("source", "out"):
        (tmp_path / folder).mkdir()
    (tmp_path / "source" / "encoder-model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "source" / "data").touch()
    os.truncate(tmp_path / "source" / "data", 200 * MIB)
    program = """
import pathlib, sys
from artifacts.steps import convert_fp16 as step
step.run(pathlib.Path(sys.argv[2]), step.Params(), model=pathlib.Path(sys.argv[1]))
status = dict(line.split(":") for line in open("/proc/self/status"))
print(*(int(status[key].split()[0]) * 1024 for key in ("VmHWM", "RssFile")))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "source"), str(tmp_path / "out")]
    peak, of_files = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    written = tmp_path / "out" / "encoder-model.onnx.data"
    assert written.stat().st_size == 100 * MIB
    written.unlink()  # pytest would keep it
    assert peak - of_files < 100 * MIB


@pytest.fixture(scope="module")
def encoders(encoder_fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The encoder by either converter, with its Casts repaired."""
    found = {}
    for converter in CONVERTERS:
        converted, found[converter] = tmp_path_factory.mktemp("converted"), tmp_path_factory.mktemp("fixed")
        params = convert_fp16.Params.model_validate({"converter": converter})
        convert_fp16.run(converted, params, model=encoder_fp32)
        fix_fp16_casts.run(found[converter], fix_fp16_casts.Params(), model=converted)
    return found


@pytest.mark.slow
def test_both_converters_give_the_encoder_the_same_weights(encoder_fp32: Path, encoders: dict[str, Path]) -> None:
    ours, theirs = (
        {t.name: t for t in load_graph(find_model(encoders[converter])).graph.initializer} for converter in CONVERTERS
    )
    assert set(ours) == set(theirs)
    assert len(ours) > 50
    for name, tensor in ours.items():
        np.testing.assert_array_equal(
            numpy_helper.to_array(tensor), numpy_helper.to_array(theirs[name]), err_msg=name, strict=True
        )


@pytest.mark.slow
def test_both_converters_transcribe_the_same(
    encoder_fp32: Path, encoders: dict[str, Path], speech_features: list[tuple[Array, Array]]
) -> None:
    for features, length in speech_features:
        inputs = {"audio_signal": features, "length": length}
        expected, expected_length = outputs(encoder_fp32, **inputs)
        for folder in encoders.values():
            found, found_length = outputs(folder, **inputs)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found_length, expected_length, strict=True)
            cosine = np.vdot(found, expected) / np.sqrt(np.vdot(found, found) * np.vdot(expected, expected))
            assert cosine > 0.9999
