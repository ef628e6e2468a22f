"""A model runs once on dummy inputs that fit any model of this family."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from artifacts.errors import StepError
from artifacts.graph.smoke_run import FRAMES, check_and_run, dummy_inputs, smoke_run
from emulated import needs_bounded_memory

HEADER = '<ir_version: 8, opset_import: ["" : 17]> g '


def session(text: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(parser.parse_model(HEADER + text).SerializeToString(), options)


def test_an_encoder_gets_as_many_frames_as_it_is_told(encoder_fp32: Path) -> None:
    inputs = dummy_inputs(onnxruntime.InferenceSession(encoder_fp32 / "encoder-model.onnx"))
    assert inputs["audio_signal"].shape == (1, 128, FRAMES)
    assert inputs["length"].tolist() == [FRAMES]
    assert inputs["audio_signal"].std() > 0.5


def test_a_decoder_joint_gets_one_row_of_states(decoder_joint_fp32: Path) -> None:
    (path,) = decoder_joint_fp32.glob("*.onnx")
    model = onnxruntime.InferenceSession(path)
    inputs = dummy_inputs(model)
    assert {array.shape[1] for array in inputs.values() if array.ndim == 3 and array.shape[0] == 2} == {1}
    assert all(np.isfinite(output).all() for output in model.run(None, inputs))
    assert not smoke_run(model, path.name)


def test_fixed_axes_are_kept_and_lengths_fit_them() -> None:
    inputs = dummy_inputs(session("(float[2,3,5] x, int64[2] n) => (float[2,3,5] y) { m = Cast<to=1>(n) y = Neg(x) }"))
    assert inputs["x"].shape == (2, 3, 5)
    assert inputs["n"].tolist() == [5, 5]


def test_outputs_with_infinity_are_named() -> None:
    model = session("(float[B,4] x) => (float[B,4] y, float[B,4] z) { y = Neg(x) zero = Sub(x, x) z = Div(x, zero) }")
    assert smoke_run(model, "m.onnx") == {"z"}


def test_a_model_that_does_not_run_is_an_error_that_quotes_the_runtime() -> None:
    model = session("""(float[B,4] x) => (float[B,3] y) {
        shape = Constant<value = int64[2] {-1, 3}>()
        y = Reshape(x, shape)
    }""")
    with pytest.raises(StepError, match=r"m\.onnx: ONNX Runtime does not run it: .*Reshape"):
        smoke_run(model, "m.onnx")


def test_strings_are_empty_and_not_checked() -> None:
    model = session("(string[B,3] x) => (string[B,3] y) { y = Identity(x) }")
    assert dummy_inputs(model)["x"].tolist() == [["", "", ""]]
    assert not smoke_run(model, "m.onnx")


def test_each_tensor_of_a_sequence_must_be_finite() -> None:
    assert not smoke_run(session("(float[4] x) => (seq(float[4]) y) { y = SequenceConstruct(x, x) }"), "m.onnx")
    model = session("(float[4] x) => (seq(float[4]) y) { z = Log(x) y = SequenceConstruct(x, z) }")
    assert smoke_run(model, "m.onnx") == {"y"}


def test_an_optional_output_may_be_nothing() -> None:
    model = session("(float[4] x) => (optional(float[4]) y) { y = Optional<type = float[4]>() }")
    assert not smoke_run(model, "m.onnx")


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("(bfloat16[4] x) => (float[4] y) { y = Cast<to=1>(x) }", r"'x' has type tensor\(bfloat16\)"),
        ("(float[4] x) => (bfloat16[4] y) { y = Cast<to=16>(x) }", r"'y' has type tensor\(bfloat16\)"),
        ("(seq(float[4]) x) => (int64 y) { y = SequenceLength(x) }", r"'x' has type seq\(tensor\(float\)\)"),
    ],
)
def test_an_unsupported_type_is_an_error(text: str, fact: str) -> None:
    with pytest.raises(StepError, match=rf"m\.onnx: {fact}, which a smoke run does not support"):
        smoke_run(session(text), "m.onnx")


def test_an_input_of_a_huge_shape_is_refused_before_it_is_allocated() -> None:
    model = session("(float[B,1000000000000] x) => (float[B,1000000000000] y) { y = Neg(x) }")
    with pytest.raises(StepError, match=r"m\.onnx: input 'x' has shape \['B', 1000000000000\]"):
        smoke_run(model, "m.onnx")


FILL = """(float[1] x) => (float y) {
    shape = Constant<value = int64[1] {COUNT}>()
    z = ConstantOfShape(shape)
    y = ReduceMax<keepdims=0>(z)
}"""
LOOP = """(float x) => (float y) {
    rounds = Constant<value = int64 {4611686018427387904}>()
    go = Constant<value = bool {1}>()
    y = Loop(rounds, go, x) <body = b (int64 i, bool c, float v) => (bool d, float w) { d = Identity(c) w = Neg(v) }>
}"""


@needs_bounded_memory
@pytest.mark.parametrize("count", [10**9, 10**13])
def test_a_model_that_takes_more_memory_than_it_may_is_refused(count: int) -> None:
    with pytest.raises(StepError, match=r"m\.onnx: ONNX Runtime does not run it: takes more than 1\.5 GiB"):
        smoke_run(session(FILL.replace("COUNT", str(count))), "m.onnx")


def test_a_model_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("artifacts.graph.smoke_run.LIMIT_SECONDS", 0.5)
    with pytest.raises(StepError, match=r"m\.onnx: ONNX Runtime does not run it: "):
        smoke_run(session(LOOP), "m.onnx")


def test_a_file_is_checked_and_run(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(parser.parse_model(HEADER + "(float[B,4] x) => (float[B,4] y) { y = Neg(x) }"), path)
    check_and_run(path, path)
    onnx.save(parser.parse_model(HEADER + "(float[B,4] x) => (float[B,4] y) { y = Negg(x) }"), path)
    with pytest.raises(StepError, match=r"^m\.onnx: not valid ONNX: .*Negg"):
        check_and_run(path, path)


def pair(folder: Path, source: str, result: str) -> tuple[Path, Path]:
    """The files of a result and of its source."""
    paths = folder / "result" / "m.onnx", folder / "source" / "m.onnx"
    for path, text in zip(paths, (result, source), strict=True):
        path.parent.mkdir()
        onnx.save_model(parser.parse_model(HEADER + text), path)
    return paths


RUNS = "(float[B,T] x) => (float[B,T] y) { y = Neg(x) }"
LACKS_NUMBERS = "(float[B,T] x) => (float[B,U] y) { s = Constant<value = int64[2] {-1, 31}>() y = Reshape(x, s) }"
NOT_FINITE = "(float[B,T] x) => (float[B,T] y) { z = Sub(x, x) y = Div(x, z) }"
MASKED = """(float[B,T] x, bool[B,T] m) => (float[B,T] y) {
    low = Constant<value = float {-inf}>()
    z = Where(m, x, low)
    y = Softmax(z)
}"""
WRONG_CAST = "(float[B,T] x) => (float[B,T] y) { h = Cast<to=10>(x) y = Add(x, h) }"
TWO_OUTPUTS = "(float[B,T] x) => (float[B,T] y, float[B,T] w) { z = Sub(x, x) y = Div(x, z) w = Neg(x) }"
TWO_NOT_FINITE = "(float[B,T] x) => (float[B,T] y, float[B,T] w) { z = Sub(x, x) y = Div(x, z) w = Div(x, z) }"


def padded(by: int) -> str:
    return f"""(float[B,T] x) => (float[B,U] y) {{
        pads = Constant<value = int64[4] {{0, 0, 0, {by}}}>()
        y = Pad<mode="reflect">(x, pads)
    }}"""


@pytest.mark.parametrize("text", [RUNS, padded(64), MASKED], ids=["all", "long enough", "not masked"])
def test_a_result_runs_on_some_dummy_inputs(tmp_path: Path, text: str) -> None:
    assert check_and_run(*pair(tmp_path, text, text)) == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [(padded(2000), "ONNX Runtime does not run it: .*Pad"), (NOT_FINITE, "output 'y' is not finite")],
)
def test_what_the_source_does_not_do_either_is_a_metric(tmp_path: Path, text: str, reason: str) -> None:
    metrics = check_and_run(*pair(tmp_path, text, text))
    assert metrics.keys() == {"smoke_run"}
    assert re.match(rf"not run: m\.onnx: {reason}", metrics["smoke_run"])


def test_finite_numbers_can_be_asked_for_whatever_the_source_gives(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"m\.onnx: output 'y' is not finite"):
        check_and_run(*pair(tmp_path, NOT_FINITE, NOT_FINITE), finite=True)


def test_one_of_the_inputs_is_enough_for_finite_numbers(tmp_path: Path) -> None:
    assert check_and_run(*pair(tmp_path, MASKED, MASKED), finite=True) == {}


@pytest.mark.parametrize(
    ("source", "result", "fact"),
    [
        (RUNS, LACKS_NUMBERS, "ONNX Runtime does not run it: .*Reshape"),
        (NOT_FINITE, LACKS_NUMBERS, "ONNX Runtime does not run it: .*Reshape"),
        (RUNS, NOT_FINITE, "output 'y' is not finite"),
        (TWO_OUTPUTS, TWO_NOT_FINITE, "output 'w' is not finite"),
        (WRONG_CAST, LACKS_NUMBERS, "ONNX Runtime does not run it: .*Reshape"),
    ],
    ids=["runs", "gives infinity", "is finite", "is finite in an output", "does not load"],
)
def test_a_result_that_is_worse_than_its_source_is_refused(tmp_path: Path, source: str, result: str, fact: str) -> None:
    with pytest.raises(StepError, match=rf"m\.onnx: {fact}"):
        check_and_run(*pair(tmp_path, source, result))
