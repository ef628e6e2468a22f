"""An encoder converted to fp16, by either converter, loads again, has nearly the same outputs, and exact lengths."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, parser
from onnx.reference import ReferenceEvaluator
from onnx.utils import Extractor
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.graph.model_file import consolidate
from artifacts.steps import convert_fp16, fix_fp16_casts

Array = np.ndarray[Any, Any]
Metrics = dict[str, float | int | str]

ALL_FRAME_COUNTS = np.arange(1, 40_001)
"""400 s: where the table of positions ends."""


@pytest.fixture(scope="module", params=["streaming", "onnxconverter-common"])
def converted_encoder(
    request: pytest.FixtureRequest, encoder_fp32: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return convert(encoder_fp32, tmp_path_factory.mktemp("converted"), request.param)


@pytest.fixture(scope="module")
def fixed_encoder(converted_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    return fix(converted_encoder, tmp_path_factory.mktemp("fixed"))


def convert(model: Path, out: Path, converter: str = "streaming", **params: Any) -> Path:
    convert_fp16.run(out, convert_fp16.Params(converter=converter, **params), model=model)
    return out


def fix(model: Path, out: Path) -> tuple[Path, Metrics]:
    return out, fix_fp16_casts.run(out, fix_fp16_casts.Params(), model=model)


def onnx_file(folder: Path) -> Path:
    (path,) = folder.glob("*.onnx")
    return path


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def length_part(path: Path) -> ModelProto:
    """The part of an encoder from its integer input to every integer that is computed from it in floats."""
    model = onnx.load(path)
    (length,) = (given.name for given in model.graph.input if given.type.tensor_type.elem_type == TensorProto.INT64)
    (result,) = (given.name for given in model.graph.output if given.type.tensor_type.elem_type == TensorProto.INT64)
    reached = {length}
    counts = [result]
    for node in model.graph.node:
        if node.op_type in ("Cast", "Add", "Sub", "Div", "Floor") and not reached.isdisjoint(node.input):
            reached.update(node.output)
            if node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == TensorProto.INT64:
                counts += [name for name in node.output if name != result]
    model.graph.value_info.extend(helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in counts[1:])
    return Extractor(model).extract_model([length], counts)


def lengths_by_runtime(part: ModelProto) -> list[Array]:
    session = onnxruntime.InferenceSession(part.SerializeToString())
    return list(session.run(None, {session.get_inputs()[0].name: ALL_FRAME_COUNTS}))


def lengths_as_written(part: ModelProto) -> list[Array]:
    """Each node computed in its own types: ONNX Runtime on a CPU may compute fp16 in fp32, other devices do not."""
    with np.errstate(over="ignore"):
        return list(ReferenceEvaluator(part).run(None, {part.graph.input[0].name: ALL_FRAME_COUNTS}))


def cosine(found: Array, expected: Array) -> float:
    a, b = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_there_are_no_parameters() -> None:
    assert fix_fp16_casts.Params() == fix_fp16_casts.Params.model_validate_json("{}")
    with pytest.raises(ValidationError, match="keep"):
        fix_fp16_casts.Params.model_validate_json('{"keep": true}')


def test_our_own_converter_leaves_nothing_to_repair(encoder_fp32: Path, tmp_path: Path) -> None:
    converted, fixed = tmp_path / "converted", tmp_path / "fixed"
    converted.mkdir()
    fixed.mkdir()
    convert(encoder_fp32, converted)
    open_session(onnx_file(converted))
    _, metrics = fix(converted, fixed)
    assert digests(fixed) == digests(converted)
    assert not any(count for name, count in metrics.items() if name not in ("casts_kept", "length_nodes"))


def test_the_librarys_encoder_does_not_load_and_the_fixed_one_does(encoder_fp32: Path, tmp_path: Path) -> None:
    converted, fixed = tmp_path / "converted", tmp_path / "fixed"
    converted.mkdir()
    fixed.mkdir()
    convert(encoder_fp32, converted, "onnxconverter-common")
    with pytest.raises(Exception, match="bound to different types"):
        open_session(onnx_file(converted))
    _, metrics = fix(converted, fixed)
    path = onnx_file(fixed)
    open_session(path)
    assert metrics["casts_changed"] == 4  # of the masks in front of each convolution
    assert metrics["casts_inserted"] == metrics["casts_removed"] == metrics["inputs_restored"] == 0
    to_fp32 = [n for n in onnx.load(path).graph.node if n.op_type == "Cast" and n.attribute[0].i == TensorProto.FLOAT]
    assert metrics["casts_kept"] == len(to_fp32) == 5  # four of lengths, one in front of the output


def test_inputs_and_outputs_are_those_of_fp32(encoder_fp32: Path, fixed_encoder: tuple[Path, Metrics]) -> None:
    fixed, reference = (open_session(onnx_file(folder)) for folder in (fixed_encoder[0], encoder_fp32))
    for values in ("get_inputs", "get_outputs"):
        described = [[(v.name, v.type, v.shape) for v in getattr(session, values)()] for session in (fixed, reference)]
        assert described[0] == described[1]


def test_every_length_up_to_40000_frames_is_that_of_fp32(
    encoder_fp32: Path, fixed_encoder: tuple[Path, Metrics]
) -> None:
    part = length_part(onnx_file(fixed_encoder[0]))
    expected = lengths_by_runtime(length_part(onnx_file(encoder_fp32)))
    assert len(expected) >= 5  # encoded_lengths and the length behind each mask
    np.testing.assert_array_equal(expected[0], -(-ALL_FRAME_COUNTS // 8))
    for found in (lengths_by_runtime(part), lengths_as_written(part)):
        np.testing.assert_array_equal(np.stack(found), np.stack(expected))


def test_every_cast_flipped_to_fp16_would_give_wrong_lengths(encoder_fp32: Path, tmp_path: Path) -> None:
    part = length_part(onnx_file(convert(encoder_fp32, tmp_path, "onnxconverter-common")))
    for node in part.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    wrong = ALL_FRAME_COUNTS[lengths_as_written(part)[0] != -(-ALL_FRAME_COUNTS // 8)]
    assert wrong.size > 10_000
    assert wrong.min() > 2048


def test_fp16_outputs_are_near_those_of_fp32(
    encoder_fp32: Path, fixed_encoder: tuple[Path, Metrics], speech_features: list[tuple[Array, Array]]
) -> None:
    fixed, reference = (open_session(onnx_file(folder)) for folder in (fixed_encoder[0], encoder_fp32))
    assert max(length.item() for _, length in speech_features) > 2048
    for features, length in speech_features:
        feeds = {"audio_signal": features, "length": length}
        (found, found_lengths), (expected, lengths) = (session.run(None, feeds) for session in (fixed, reference))
        np.testing.assert_array_equal(found_lengths, lengths)
        assert np.isfinite(found).all()
        assert cosine(found, expected) > 0.99999


def test_fp16_outputs_are_near_also_where_every_node_computes_in_fp16(
    encoder_fp32: Path, fixed_encoder: tuple[Path, Metrics], speech_features: list[tuple[Array, Array]]
) -> None:
    features, length = min(speech_features, key=lambda pair: pair[1].item())
    feeds = {"audio_signal": features, "length": length}
    found, found_lengths = ReferenceEvaluator(onnx.load(onnx_file(fixed_encoder[0]))).run(None, feeds)
    expected, lengths = open_session(onnx_file(encoder_fp32)).run(None, feeds)
    np.testing.assert_array_equal(found_lengths, lengths)
    assert cosine(found, expected) > 0.99999


def test_weights_are_copied_as_they_are(encoder_fp32: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("fp32", "fp16", "fixed")]
    for folder in folders:
        folder.mkdir()
    consolidate(onnx_file(encoder_fp32), folders[0] / "encoder-model.onnx", external=True)
    convert(folders[0], folders[1])
    before = digests(folders[1])
    fix(folders[1], folders[2])
    assert digests(folders[1]) == before
    after = digests(folders[2])
    assert after.keys() == {"encoder-model.onnx", "encoder-model.onnx.data"}
    assert after["encoder-model.onnx.data"] == before["encoder-model.onnx.data"]


def test_a_decoder_joint_whose_types_agree_is_passed_on(decoder_joint_fp32: Path, tmp_path: Path) -> None:
    converted, fixed = tmp_path / "converted", tmp_path / "fixed"
    converted.mkdir()
    fixed.mkdir()
    convert(decoder_joint_fp32, converted)
    _, metrics = fix(converted, fixed)
    assert not any(count for name, count in metrics.items() if name != "casts_kept")
    assert [n.name for n in onnx.load(onnx_file(fixed)).graph.node] == [
        n.name for n in onnx.load(onnx_file(converted)).graph.node
    ]


def test_the_bytes_depend_on_nothing_but_the_model(
    converted_encoder: Path, fixed_encoder: tuple[Path, Metrics], tmp_path: Path
) -> None:
    script = (
        "import sys; from pathlib import Path; from artifacts.steps import fix_fp16_casts as step;"
        "step.run(Path(sys.argv[2]), step.Params(), model=Path(sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-W", "error", "-c", script, str(converted_encoder), str(tmp_path)]
    subprocess.run(command, env=environment, cwd=tmp_path.parent, check=True)
    assert digests(tmp_path) == digests(fixed_encoder[0])


def test_a_model_without_fp16_is_refused(encoder_fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"encoder-model\.onnx: has no fp16 tensor"):
        fix(encoder_fp32, tmp_path)


def test_a_model_with_infinite_results_is_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[B,4] x) => (float[B,4] y) { w = Constant<value = float16[1] {31744}>() h = Cast<to=10>(x)
        a = Mul(h, w) y = Cast<to=1>(a) }"""
    onnx.save(parser.parse_model(text), source / "model.onnx")  # 31744: the bits of infinity
    with pytest.raises(StepError, match=r"model\.onnx: output 'y' is not finite"):
        fix(source, target)
