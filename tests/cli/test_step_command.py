"""`doit step`: params as options, checked as in a recipe, and a mistake in two lines."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from artifacts.cli.options import UserError
from artifacts.cli.step_command import Step, _params
from artifacts.plan.step_files import STEPS_PACKAGE, known_steps
from artifacts.steps import convert_fp16, measure_size, measure_wer, quantize_nbits
from small_model import write_model

if TYPE_CHECKING:
    from pydantic import BaseModel

SHARD = ("shard_weights", "--model", "a", "--out", "b")
FP16 = ("convert_fp16", "--model", "a", "--out", "b")


def step(*words: str) -> int:
    code: int = Step().parse_execute(list(words))
    return code


def test_a_model_is_sharded_and_the_result_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path / "model")
    model, out = tmp_path / "model" / "encoder-model.onnx", tmp_path / "out"
    assert step("shard_weights", "--model", str(model), "--out", str(out), "--max-shard-bytes", "40000") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{out}/encoder-model.onnx.data.001  32.8 kB" in lines
    assert "shards 3" in lines
    assert len(list(out.iterdir())) == 4


@pytest.mark.parametrize(
    ("model", "given", "filled"),
    [
        (convert_fp16.Params, {"keep_fp32_ops": ["Softmax", "Exp"]}, {"keep_fp32_ops": ["Softmax", "Exp"]}),
        (convert_fp16.Params, {"keep_fp32_ops": ["[Softmax, Exp]"]}, {"keep_fp32_ops": ["Softmax", "Exp"]}),
        (convert_fp16.Params, {"min_positive_val": ["1e-6"]}, {"min_positive_val": 1e-6}),
        (convert_fp16.Params, {"converter": ["onnxconverter-common"]}, {"converter": "onnxconverter-common"}),
        (convert_fp16.Params, {"keep_io_types": ["false"]}, {"keep_io_types": False}),
        (convert_fp16.Params, {"keep_fp32_nodes": ["1.5"]}, {"keep_fp32_nodes": ["1.5"]}),
        (quantize_nbits.Params, {"bits": ["4"]}, {"bits": 4}),
        (measure_size.Params, {"gzip_level": ["null"]}, {"gzip_level": None}),
        (measure_wer.Params, {"slices": ["clean"]}, {"slices": ["clean"]}),
        (measure_wer.Params, {"buffered": ["{chunk_seconds: 1}"]}, {"buffered": {"chunk_seconds": 1.0}}),
    ],
)
def test_an_option_is_the_value_that_a_recipe_would_have(
    model: type[BaseModel], given: dict[str, list[str]], filled: dict[str, Any]
) -> None:
    found = _params(model, given)
    assert set(found) == set(model.model_fields)
    for key, value in filled.items():
        assert found[key] == value or found[key].items() >= value.items()


@pytest.mark.parametrize(
    ("words", "fact", "fix"),
    [
        (("shard_weight",), "no step is called 'shard_weight'", "did you mean 'shard_weights'?"),
        (("shard_weights",), "step shard_weights: the following arguments are required: --model, --out", "see: doit"),
        (
            ("shard_weights", "--model", "a", "--out", "b", "--zz", "1"),
            "step shard_weights: takes no option '--zz'",
            "see: doit step shard_weights --help",
        ),
        (
            (*SHARD, "--max-shard-byte", "3"),
            "step shard_weights: takes no option '--max-shard-byte'",
            "did you mean '--max-shard-bytes'?",
        ),
        (
            ("shard_weights", "my x", "--out", "b"),
            "step shard_weights: 'my x' is given without an option",
            "give 'my x' as --model 'my x'",
        ),
        (
            ("fuse_decoder_joint", "--out=b", "x"),
            "step fuse_decoder_joint: 'x' is given without an option",
            "give 'x' as --predictor x or --joint x",
        ),
        ((*SHARD, "x"), "step shard_weights: unrecognized arguments: x", "see: doit step shard_weights --help"),
        (
            ("shard_weights", "--modle", "a", "--out", "b"),
            "step shard_weights: takes no option '--modle'",
            "did you mean '--model'?",
        ),
        (
            (*SHARD, "--max-shard-bytes", "3000000000"),
            "--max-shard-bytes: must be less than 2147483648, got 3000000000",
            "use 2147483647 or less",
        ),
        (
            (*SHARD, "--max-shard-bytes", "many"),
            '--max-shard-bytes: must be a whole number, got "many"',
            "correct --max-shard-bytes",
        ),
        (
            (*SHARD, "--max-shard-bytes", "["),
            "--max-shard-bytes:2:1: not YAML: ",
            "correct the syntax there",
        ),
        (
            (
                "convert_fp16",
                "--model",
                "a",
                "--out",
                "b",
                "--converter",
                "onnxconverter-common",
                "--keep-fp32-ops",
                "Cast",
            ),
            "onnxconverter-common never ends when keep_fp32_ops contains 'Cast'",
            "correct the options",
        ),
        (
            ("shard_weights", "--model", "none", "--out", "b"),
            "--model: no file or folder at 'none'",
            "correct the path",
        ),
    ],
)
def test_a_mistake_is_told_in_two_lines(
    words: tuple[str, ...],
    fact: str,
    fix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        step(*words)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(fact)
    assert lines[1].startswith(f"  fix: {fix}")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == "", "it is not said to run before it is refused"


@pytest.mark.parametrize("name", known_steps())
def test_help_names_every_input_and_param(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert step(name, "--help") == 0
    text = capsys.readouterr().out
    module = importlib.import_module(f"{STEPS_PACKAGE}.{name}")
    for key in module.Params.model_fields:
        assert f"--{key.replace('_', '-')} " in text
    assert "--out FOLDER" in text


def test_without_a_name_it_lists_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert step() == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(known_steps())
