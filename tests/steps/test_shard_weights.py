"""Weights are spread over files within a budget; a session over the shards has the same outputs bit for bit."""

from __future__ import annotations

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
from onnx import TensorProto, helper, numpy_helper, parser
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.graph.external_data import reference_of
from artifacts.graph.model_file import check_model, consolidate, find_model, load_graph
from artifacts.graph.tensors import is_external, iter_tensors
from artifacts.steps import shard_weights

Array = npt.NDArray[Any]
MIB = 1 << 20

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[4, 256] x, bool c) => (float[4, 256] y)
{
  a = MatMul(x, raw)
  b = MatMul(a, typed)
  table = Constant()
  d = Add(b, table)
  y = If(c) <
    then_branch = yes () => (float[4, 256] t) { t = Add(d, in_branch) },
    else_branch = no () => (float[4, 256] e) { k = Constant()  e = Mul(d, k) }
  >
}
"""


def shard(model: Path, out: Path, max_shard_bytes: int) -> dict[str, float | int | str]:
    out.mkdir()
    return shard_weights.run(out, shard_weights.Params(max_shard_bytes=max_shard_bytes), model=model)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def values(folder: Path) -> list[tuple[str, bytes]]:
    model = onnx.load(find_model(folder))
    return [(tensor.name, numpy_helper.to_array(tensor).tobytes()) for tensor in iter_tensors(model)]


def outputs(folder: Path, **inputs: Array) -> list[bytes]:
    session = onnxruntime.InferenceSession(find_model(folder), providers=["CPUExecutionProvider"])
    return [output.tobytes() for output in session.run(None, inputs)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model with 263 kB matrices in a raw and in a typed field, 4 kB in a Constant and in both branches of an If."""
    matrix, table = (np.random.default_rng(0).standard_normal(dims, np.float32) for dims in ((256, 256), (4, 256)))
    model = parser.parse_model(GRAPH)
    model.graph.initializer.append(numpy_helper.from_array(matrix, "raw"))
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [256, 256], matrix.T.ravel().tolist())
    model.graph.initializer.append(typed)
    branches = [attribute.g for attribute in model.graph.node[-1].attribute]
    branches[0].initializer.append(numpy_helper.from_array(table, "in_branch"))
    for node, scale in ((model.graph.node[2], 2), (branches[1].node[0], 3)):
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(table * np.float32(scale))))
    folder = tmp_path / "source"
    folder.mkdir()
    onnx.save(model, folder / "encoder-model.onnx")
    return folder


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("{}", 1_500_000_000),
        ('{"max_shard_bytes": 1}', 1),
        ('{"max_shard_bytes": 2147483647}', 2**31 - 1),
        ('{"max_shard_bytes": 2147483648}', None),
        ('{"max_shard_bytes": 0}', None),
        ('{"max_shard_bytes": -5}', None),
        ('{"max_shard_bytes": 1.5}', None),
        ('{"max_shard_bytes": "1GB"}', None),
        ('{"max_shards": 3}', None),
    ],
)
def test_a_budget_is_a_positive_number_of_bytes_below_2_31(text: str, budget: int | None) -> None:
    if budget is None:
        with pytest.raises(ValidationError):
            shard_weights.Params.model_validate_json(text)
    else:
        assert shard_weights.Params.model_validate_json(text).max_shard_bytes == budget


def test_shards_are_named_after_the_model_and_numbered_from_000(source: Path, tmp_path: Path) -> None:
    metrics = shard(source, tmp_path / "out", 300_000)
    assert names(tmp_path / "out") == [
        "encoder-model.onnx", "encoder-model.onnx.data.000", "encoder-model.onnx.data.001",
    ]  # fmt: skip
    sizes = [path.stat().st_size for path in sorted((tmp_path / "out").glob("*.data.*"))]
    assert sizes == [262_144, 262_144 + 3 * 4096]
    assert metrics == {"shards": 2, "tensors": 5, "bytes": sum(sizes), "largest_shard_bytes": max(sizes)}
    check_model(tmp_path / "out" / "encoder-model.onnx")


@pytest.mark.parametrize("max_shard_bytes", [1, 4096, 100_000, 262_144, 270_336, 2**31 - 1])
def test_tensors_and_outputs_stay_the_same_in_raw_and_typed_fields_constants_and_branches(
    source: Path, tmp_path: Path, max_shard_bytes: int
) -> None:
    out = tmp_path / "out"
    shard(source, out, max_shard_bytes)
    assert values(out) == values(source)
    x = np.random.default_rng(1).standard_normal((4, 256), np.float32)
    for condition in (True, False):
        inputs = {"x": x, "c": np.array(condition)}
        assert outputs(out, **inputs) == outputs(source, **inputs)


def test_a_tensor_is_never_split_and_one_beyond_the_budget_is_alone(source: Path, tmp_path: Path) -> None:
    shard(source, tmp_path / "out", 8192)
    references = [reference_of(t) for t in iter_tensors(load_graph(tmp_path / "out" / "encoder-model.onnx"))]
    placed = [(reference.location[-3:], reference.offset_bytes, reference.length_bytes) for reference in references]
    assert placed == [
        ("000", 0, 262_144), ("001", 0, 262_144), ("002", 0, 4096), ("002", 4096, 4096), ("003", 0, 4096),
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["inline", "one data file", "shards"])
def test_the_same_shards_come_from_every_form_of_the_model(source: Path, tmp_path: Path, form: str) -> None:
    given = source
    if form == "one data file":
        given = tmp_path / "given"
        given.mkdir()
        consolidate(source / "encoder-model.onnx", given / "encoder-model.onnx", external=True)
    elif form == "shards":
        given = tmp_path / "given"
        shard(source, given, 5000)
    shard(source, tmp_path / "expected", 300_000)
    shard(given, tmp_path / "out", 300_000)
    expected, found = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("expected", "out")
    )
    assert found == expected


def write_large(folder: Path, nbytes: int) -> None:
    """A model whose one tensor has that many bytes, all in a hole of a sparse file."""
    folder.mkdir()
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (uint8[1] x) => (uint8[1] y) { y = Identity(x) }'
    )
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.UINT8, dims=[nbytes])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="encoder-model.onnx.data")
    (folder / "encoder-model.onnx").write_bytes(model.SerializeToString())
    (folder / "encoder-model.onnx.data").touch()
    os.truncate(folder / "encoder-model.onnx.data", nbytes)


def test_a_tensor_larger_than_a_buffer_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_large(tmp_path / "source", 2**31)
    with pytest.raises(StepError, match="'w' has 2147483648 bytes, no shard may exceed 2147483647"):
        shard(tmp_path / "source", tmp_path / "out", 1000)
    assert names(tmp_path / "out") == []


def test_a_model_without_large_tensors_is_refused(tmp_path: Path) -> None:
    write_large(tmp_path / "source", 1023)
    with pytest.raises(StepError, match="0 tensors of 1024 bytes or more"):
        shard(tmp_path / "source", tmp_path / "out", 1000)


@pytest.mark.parametrize("damage", ["missing", "short", "truncated"])
def test_bad_input_is_refused_and_nothing_is_written(source: Path, tmp_path: Path, damage: str) -> None:
    given = tmp_path / "given"
    shard(source, given, 5000)
    if damage == "missing":
        (given / "encoder-model.onnx.data.001").unlink()
    elif damage == "short":
        os.truncate(given / "encoder-model.onnx.data.001", 262_143)
    else:
        os.truncate(given / "encoder-model.onnx", 100)
    with pytest.raises(StepError, match=r"^encoder-model\.onnx: ") as caught:
        shard(given, tmp_path / "out", 5000)
    assert damage == "truncated" or "encoder-model.onnx.data.001" in caught.value.fact
    assert names(tmp_path / "out") == []


def test_weights_are_never_held_in_memory(tmp_path: Path) -> None:
    """Twice the memory limit, so that weights in memory, or mapped, would exceed it."""
    write_large(tmp_path / "source", 200 * MIB)
    (tmp_path / "out").mkdir()
    program = """
import json, pathlib, sys
from artifacts.steps import shard_weights as step
step.run(pathlib.Path(sys.argv[2]), step.Params(), model=pathlib.Path(sys.argv[1]))
status = dict(line.split(":") for line in open("/proc/self/status"))
print(json.dumps(int(status["VmHWM"].split()[0]) * 1024))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "source"), str(tmp_path / "out")]
    peak = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    (tmp_path / "out" / "encoder-model.onnx.data.000").unlink()  # 200 MiB that pytest would keep
    assert peak < 100 * MIB


def test_the_encoder_s_outputs_stay_the_same_bit_for_bit(
    encoder_fp32: Path, speech_features: list[tuple[Array, Array]], tmp_path: Path
) -> None:
    metrics = shard(encoder_fp32, tmp_path / "out", 1_000_000)
    assert isinstance(metrics["shards"], int)
    assert metrics["shards"] > 4
    assert names(tmp_path / "out") == [
        "encoder-model.onnx", *(f"encoder-model.onnx.data.{index:03d}" for index in range(metrics["shards"])),
    ]  # fmt: skip
    assert values(tmp_path / "out") == values(encoder_fp32)
    for tensor, (_, data) in zip(
        iter_tensors(load_graph(find_model(tmp_path / "out"))), values(encoder_fp32), strict=True
    ):
        assert is_external(tensor) == (len(data) >= 1024)
    for features, length in speech_features:
        inputs = {"audio_signal": features, "length": length}
        assert outputs(tmp_path / "out", **inputs) == outputs(encoder_fp32, **inputs)


def test_a_split_into_many_parts_loads_with_the_same_outputs(tmp_path: Path) -> None:
    parts = [f"p{index}" for index in range(200)]
    text = f"""<ir_version: 8, opset_import: ["" : 17]> g (float[N,200] x) => (float[N,1] p199) {{
        h = MatMul(x, w)
        {", ".join(parts)} = Split<axis = 1>(h, sizes)
    }}"""
    model = parser.parse_model(text)
    weight = np.random.default_rng(0).standard_normal((200, 200), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(200, np.int64), "sizes"))
    (tmp_path / "source").mkdir()
    # Its own writer makes the sizes external too, and ONNX Runtime does not load that.
    onnx.save(model, tmp_path / "source" / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=1024)
    with pytest.raises(Exception, match="Cannot parse data from external tensors"):
        onnxruntime.InferenceSession(tmp_path / "source" / "m.onnx")
    assert shard(tmp_path / "source", tmp_path / "shards", 1 << 20)["tensors"] == 1
    x = np.random.default_rng(1).standard_normal((3, 200), np.float32)
    (found,) = onnxruntime.InferenceSession(tmp_path / "shards" / "m.onnx").run(None, {"x": x})
    np.testing.assert_allclose(found[:, 0], (x @ weight)[:, 199], rtol=1e-4)
