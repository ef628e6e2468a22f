"""Weights have few values, the file compresses, and outputs stay near."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.graph.model_file import consolidate
from artifacts.steps import convert_fp16, quantize_dynamic, round_weights
from artifacts.steps.round_weights import Params
from quantised_models import (
    Array,
    Features,
    Metrics,
    cosine_error,
    digests,
    encode,
    onnx_file,
    product_model,
    run_elsewhere,
)

MIB = 1 << 20


@pytest.fixture(scope="module")
def rounded_encoder(encoder_fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    return rounded(encoder_fp32, tmp_path_factory.mktemp("rounded"))


def rounded(model: Path, out: Path, **params: Any) -> tuple[Path, Metrics]:
    out.mkdir(exist_ok=True)
    return out, round_weights.run(out, Params(**params), model=model)


def large_tensors(folder: Path) -> dict[str, Array]:
    """Initializers and Constants by name."""
    graph = onnx.load(onnx_file(folder)).graph
    named = [(tensor.name, tensor) for tensor in graph.initializer]
    named += [(node.output[0], node.attribute[0].t) for node in graph.node if node.op_type == "Constant"]
    return {
        name: numpy_helper.to_array(tensor)
        for name, tensor in named
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > 16384
    }


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("{}", True),
        ('{"levels": 1000, "min_elements": 1024, "nodes_to_exclude": ["/layers.0/MatMul"]}', True),
        ('{"levels": 4}', True),
        ('{"levels": 65536}', True),
        ('{"levels": 3}', False),
        ('{"levels": 65537}', False),
        ('{"levels": 256.0}', False),
        ('{"min_elements": 0}', False),
        ('{"per_channel": true}', False),
    ],
)
def test_params(text: str, good: bool) -> None:
    if good:
        Params.model_validate_json(text)
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(text)


def test_each_large_tensor_of_the_encoder_has_at_most_256_values_one_of_them_zero(
    encoder_fp32: Path, rounded_encoder: tuple[Path, Metrics]
) -> None:
    folder, metrics = rounded_encoder
    before, after = large_tensors(encoder_fp32), large_tensors(folder)
    assert set(before) == set(after)
    assert metrics["tensors"] == len(after) > 20
    furthest = 0.0
    for name, values in after.items():
        assert 150 < np.unique(values).size <= 256 < np.unique(before[name]).size
        assert 0 in values
        assert (values[before[name] == 0] == 0).all()
        furthest = max(furthest, float(np.abs(values.astype(np.float64) - before[name]).max()))
    assert 0.99 * float(metrics["largest_error"]) < furthest < 1.00001 * float(metrics["largest_error"])


def test_the_file_is_as_large_as_it_was_and_compresses_to_less_than_half(
    encoder_fp32: Path, rounded_encoder: tuple[Path, Metrics]
) -> None:
    files = [onnx_file(folder).read_bytes() for folder in (encoder_fp32, rounded_encoder[0])]
    assert abs(len(files[1]) - len(files[0])) < 100  # a Constant became an initializer
    plain, compressed = (len(zlib.compress(data)) for data in files)
    assert plain > 0.85 * len(files[0])
    assert compressed < 0.4 * plain


@pytest.mark.parametrize(("levels", "bound"), [(256, 4e-5), (1000, 3e-6)])
def test_the_encoder_s_outputs_stay_near(
    encoder_fp32: Path, speech_features: Features, tmp_path: Path, levels: int, bound: float
) -> None:
    out, _ = rounded(encoder_fp32, tmp_path / "out", levels=levels)
    assert cosine_error(encode(out, speech_features), encode(encoder_fp32, speech_features)) < bound


@pytest.mark.parametrize("external", [True, False])
def test_the_bytes_depend_on_nothing_but_the_model_and_its_values(
    encoder_fp32: Path, tmp_path: Path, external: bool
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    consolidate(onnx_file(encoder_fp32), source / "encoder-model.onnx", external=external)
    before = digests(source)
    run_elsewhere(round_weights, tmp_path / "elsewhere", {"model": source})
    assert digests(source) == before
    here, _ = rounded(source, tmp_path / "here")
    assert digests(tmp_path / "elsewhere") == digests(here)
    data = {"encoder-model.onnx.data"} if external else set()
    assert set(digests(here)) == {"encoder-model.onnx", *data}


def test_both_forms_of_a_model_are_rounded_alike(
    encoder_fp32: Path, rounded_encoder: tuple[Path, Metrics], tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    consolidate(onnx_file(encoder_fp32), tmp_path / "source" / "encoder-model.onnx", external=True)
    out, _ = rounded(tmp_path / "source", tmp_path / "out")
    consolidate(onnx_file(out), tmp_path / "one file.onnx", external=False)
    assert (tmp_path / "one file.onnx").read_bytes() == onnx_file(rounded_encoder[0]).read_bytes()


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
    (tmp_path / "source" / "data").write_bytes(np.array([1, 0.3333], np.float32).tobytes())
    os.truncate(tmp_path / "source" / "data", 200 * MIB)
    program = """
import pathlib, sys
from artifacts.steps import round_weights as step
step.run(pathlib.Path(sys.argv[2]), step.Params(), model=pathlib.Path(sys.argv[1]))
status = dict(line.split(":") for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "source"), str(tmp_path / "out")]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    written = tmp_path / "out" / "encoder-model.onnx.data"
    assert written.stat().st_size == 200 * MIB
    written.unlink()  # pytest would keep it
    assert peak < 150 * MIB


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_weight_without_levels_is_refused(tmp_path: Path, number: float) -> None:
    with pytest.raises(StepError, match=r"model\.onnx: weight 'w': has NaN or infinity"):
        rounded(product_model(tmp_path / "source", [[1, 2], [3, number]], opset=9), tmp_path / "out", min_elements=3)


@pytest.mark.parametrize("numbers", [[[0.1, 0.1], [0.1, 0.1]], [[0, 1], [0.5, 0.75]]])
def test_rounding_that_changes_nothing_is_an_error(tmp_path: Path, numbers: list[list[float]]) -> None:
    with pytest.raises(StepError, match=r"model\.onnx: 0 numbers changed"):
        rounded(product_model(tmp_path / "source", numbers, opset=9), tmp_path / "out", min_elements=3, levels=5)


def test_a_model_that_cannot_be_rounded_is_refused(encoder_fp32: Path, tmp_path: Path) -> None:
    source = product_model(tmp_path / "source")
    for name in ("half", "int8"):
        (tmp_path / name).mkdir()
    convert_fp16.run(tmp_path / "half", convert_fp16.Params(), model=source)
    with pytest.raises(StepError, match=r"model\.onnx: has fp16 tensors"):
        rounded(tmp_path / "half", tmp_path / "from half")
    quantize_dynamic.run(tmp_path / "int8", quantize_dynamic.Params.model_validate({}), model=encoder_fp32)
    with pytest.raises(StepError, match=r"encoder-model\.onnx: quantised already"):
        rounded(tmp_path / "int8", tmp_path / "from int8")
    with pytest.raises(StepError, match=r"model\.onnx: 0 float32 tensors of more than 4 elements"):
        rounded(source, tmp_path / "small", min_elements=4)
    with pytest.raises(StepError, match=r"model\.onnx: no node is called 'prodct'") as caught:
        rounded(source, tmp_path / "excluded", min_elements=3, nodes_to_exclude=("prodct",))
    assert caught.value.fix == "did you mean 'product'?"
