from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.graph.model_file import find_model, load_graph, save_graph
from artifacts.steps import lay_out_onnx_asr
from artifacts.steps.lay_out_onnx_asr import Params

ENCODER, DECODER = "encoder-model", "decoder_joint-model"
REST = ["SHA256SUMS", "config.json", "nemo128.onnx", "vocab.txt"]


def test_params_are_none() -> None:
    Params.model_validate_json("{}")
    with pytest.raises(ValidationError):
        Params.model_validate_json('{"suffix": ".fp16"}')


@pytest.fixture(scope="module")
def fp32(
    encoder_fp32: Path, decoder_joint_fp32: Path, tokens: Path, model_meta: Path, preprocessor: Path
) -> dict[str, Path]:
    return {
        "encoder_fp32": encoder_fp32,
        "decoder_joint_fp32": decoder_joint_fp32,
        "tokens": tokens,
        "model_meta": model_meta,
        "preprocessor": preprocessor,
    }


@pytest.fixture(scope="module")
def all_three(
    fp32: dict[str, Path],
    encoder_fp16_fixed: Path,
    decoder_joint_fp16_fixed: Path,
    encoder_int8: Path,
    decoder_joint_int8_dynamic: Path,
) -> dict[str, Path]:
    return fp32 | {
        "encoder_fp16": encoder_fp16_fixed,
        "decoder_joint_fp16": decoder_joint_fp16_fixed,
        "encoder_int8": encoder_int8,
        "decoder_joint_int8": decoder_joint_int8_dynamic,
    }


def lay_out(out: Path, inputs: dict[str, Path]) -> Path:
    out.mkdir()
    lay_out_onnx_asr.run(out, Params(), **inputs)
    return out


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_contains_what_onnx_asr_reads_and_nothing_else(all_three: dict[str, Path], tmp_path: Path) -> None:
    out = lay_out(tmp_path / "out", all_three)
    models = [f"{model}{suffix}.onnx" for model in (ENCODER, DECODER) for suffix in ("", ".fp16", ".int8")]
    assert names(out) == sorted(models + REST)
    assert all(path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1 for path in out.iterdir())
    for model in (ENCODER, DECODER):
        for pattern in (f"{model}.onnx", f"{model}?fp16.onnx", f"{model}?int8.onnx"):
            assert len(list(out.glob(pattern))) == 1


def test_sha256sum_agrees_with_the_sums(fp32: dict[str, Path], tmp_path: Path) -> None:
    out = lay_out(tmp_path / "out", fp32)
    subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=out, check=True, capture_output=True)
    listed = [line.split("  ")[1] for line in (out / "SHA256SUMS").read_text(encoding="ascii").splitlines()]
    assert listed == [name for name in names(out) if name != "SHA256SUMS"]


def run_encoder(model: Path) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    features = np.sin(np.arange(128 * 90, dtype=np.float32)).reshape(1, 128, 90)
    return list(session.run(None, {"audio_signal": features, "length": np.array([90])}))


def outputs(model: Path) -> list[str]:
    return [value.name for value in load_graph(model).graph.output]


def test_the_encoder_gets_onnx_asrs_names_and_keeps_its_numbers(
    encoder_fp32: Path, fp32: dict[str, Path], tmp_path: Path
) -> None:
    out = lay_out(tmp_path / "out", fp32)
    assert outputs(encoder_fp32 / f"{ENCODER}.onnx") == ["encoder_output", "encoded_lengths"]
    assert outputs(out / f"{ENCODER}.onnx") == ["outputs", "encoded_lengths"]
    for ours, theirs in zip(
        run_encoder(out / f"{ENCODER}.onnx"), run_encoder(encoder_fp32 / f"{ENCODER}.onnx"), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_external_data_get_the_models_new_name(
    all_three: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large"
    large.mkdir()
    source = find_model(all_three["encoder_fp16"])
    save_graph(load_graph(source), large / f"{ENCODER}.onnx", source_folder=source.parent, external=True)
    out = lay_out(tmp_path / "out", all_three | {"encoder_fp16": large})
    assert [name for name in names(out) if name.endswith(".data")] == [f"{ENCODER}.fp16.onnx.data"]
    model = onnx.load(out / f"{ENCODER}.fp16.onnx", load_external_data=False)
    locations = {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    assert locations == {f"{ENCODER}.fp16.onnx.data"}
    copied = tmp_path / "copied"
    shutil.copytree(out, copied)
    shutil.rmtree(out)
    monkeypatch.chdir(tmp_path)
    for ours, theirs in zip(run_encoder(copied / f"{ENCODER}.fp16.onnx"), run_encoder(source), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_same_inputs_give_the_same_bytes(all_three: dict[str, Path], tmp_path: Path) -> None:
    sums = [(lay_out(tmp_path / name, all_three) / "SHA256SUMS").read_bytes() for name in ("a", "b")]
    assert sums[0] == sums[1]


def test_a_precision_with_half_a_pair_is_refused(fp32: dict[str, Path], encoder_int8: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError) as raised:
        lay_out(tmp_path / "out", fp32 | {"encoder_int8": encoder_int8})
    assert raised.value.fact == "encoder_int8 is given without decoder_joint_int8"


@pytest.mark.parametrize(
    ("given", "instead", "found", "wanted"),
    [("encoder_fp32", "encoder_int8", "int8", "fp32"), ("encoder_fp32", "encoder_fp16", "fp16", "fp32"),
     ("encoder_fp16", "encoder_fp32", "fp32", "fp16"), ("encoder_fp16", "encoder_int8", "int8", "fp16"),
     ("encoder_int8", "encoder_fp32", "fp32", "int8"), ("decoder_joint_fp32", "decoder_joint_int8", "int8", "fp32"),
     ("decoder_joint_fp16", "decoder_joint_int8", "int8", "fp16 or fp32")],
)  # fmt: skip
def test_a_model_of_another_precision_than_its_name_says_is_refused(
    all_three: dict[str, Path], tmp_path: Path, given: str, instead: str, found: str, wanted: str
) -> None:
    with pytest.raises(StepError) as raised:
        lay_out(tmp_path / "out", all_three | {given: all_three[instead]})
    assert raised.value.fact.endswith(f".onnx: its weights are {found}, where {wanted} belongs")


def test_a_decoder_may_be_left_in_more_bits_than_its_encoder(all_three: dict[str, Path], tmp_path: Path) -> None:
    whole = all_three["decoder_joint_fp32"]
    out = lay_out(tmp_path / "out", all_three | {"decoder_joint_fp16": whole, "decoder_joint_int8": whole})
    assert len({(out / f"{DECODER}{suffix}.onnx").read_bytes() for suffix in ("", ".fp16", ".int8")}) == 1


def edited(source: Path, target: Path, edit: Callable[[Any], None]) -> Path:
    model = onnx.load(next(source.glob("*.onnx")))
    edit(model.graph)
    target.mkdir()
    onnx.save(model, target / next(source.glob("*.onnx")).name)
    return target


def of(values: Any, name: str) -> Any:
    return next(value for value in values if value.name == name).type.tensor_type


@pytest.mark.parametrize(
    ("target", "edit", "message"),
    [
        (
            "encoder_fp32",
            lambda graph: setattr(of(graph.input, "audio_signal"), "elem_type", TensorProto.FLOAT16),
            "encoder-model.onnx: input 'audio_signal' is FLOAT16 [?, 128, ?], onnx-asr needs FLOAT [?, 128, ?]",
        ),
        (
            "encoder_fp32",
            lambda graph: setattr(of(graph.input, "audio_signal").shape.dim[1], "dim_value", 80),
            "encoder-model.onnx: input 'audio_signal' is FLOAT [?, 80, ?], onnx-asr needs FLOAT [?, 128, ?]",
        ),
        (
            "encoder_fp32",
            lambda graph: setattr(of(graph.output, "encoded_lengths"), "elem_type", TensorProto.INT32),
            "encoder-model.onnx: output 'encoded_lengths' is INT32 [?], onnx-asr needs INT64 [?]",
        ),
        (
            "encoder_fp32",
            lambda graph: graph.input.append(helper.make_tensor_value_info("cache", TensorProto.FLOAT, [1])),
            "encoder-model.onnx: onnx-asr gives no input 'cache'",
        ),
        (
            "decoder_joint_fp32",
            lambda graph: setattr(of(graph.input, "input_states_1").shape.dim[0], "dim_param", "layers"),
            "decoder_joint-model.onnx: input 'input_states_1' is FLOAT [?, ?, ",
        ),
        (
            "decoder_joint_fp32",
            lambda graph: graph.output.pop(0),
            "decoder_joint-model.onnx: output 'outputs' is missing among ",
        ),
        (
            "preprocessor",
            lambda graph: setattr(of(graph.output, "features").shape.dim[1], "dim_value", 80),
            "nemo128.onnx: output 'features' is FLOAT [?, 80, ?], onnx-asr needs FLOAT [?, 128, ?]",
        ),
        (
            "preprocessor",
            lambda graph: graph.input.pop(0),
            "nemo128.onnx: input 'waveforms' is missing among waveforms_lens",
        ),
    ],
)
def test_a_model_that_onnx_asr_would_not_read_is_refused(
    fp32: dict[str, Path], tmp_path: Path, target: str, edit: Callable[[Any], None], message: str
) -> None:
    model = edited(fp32[target], tmp_path / "edited", edit)
    with pytest.raises(StepError) as raised:
        lay_out(tmp_path / "out", fp32 | {target: model})
    assert raised.value.fact.startswith(message)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("features_size", None, "config.json: features_size: expected int, got None"),
        ("subsampling_factor", "8", "config.json: subsampling_factor: expected int, got '8'"),
        ("model_type", "nemo-conformer-ctc", "config.json: model_type: expected 'nemo-conformer-tdt', got "),
    ],
)
def test_a_configuration_that_onnx_asr_would_misread_is_refused(
    fp32: dict[str, Path], tmp_path: Path, key: str, value: Any, message: str
) -> None:
    shutil.copytree(fp32["model_meta"], tmp_path / "meta", copy_function=shutil.copyfile)
    config = json.loads((tmp_path / "meta/config.json").read_text(encoding="utf-8"))
    (tmp_path / "meta/config.json").write_text(json.dumps(config | {key: value}), encoding="utf-8")
    with pytest.raises(StepError) as raised:
        lay_out(tmp_path / "out", fp32 | {"model_meta": tmp_path / "meta"})
    assert raised.value.fact.startswith(message)


def test_tokens_of_another_checkpoint_are_refused(fp32: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens/vocab.txt").write_text("a 0\n<blk> 1\n", encoding="utf-8")
    with pytest.raises(StepError, match=r"vocab\.txt: contains 2 pieces, model_meta\.json says"):
        lay_out(tmp_path / "out", fp32 | {"tokens": tmp_path / "tokens"})


def write_branching_encoder(folder: Path, inner_name: str) -> Path:
    """An encoder whose length is computed from its output in the body of an If."""

    def value(name: str, dtype: int, shape: list[Any]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, dtype, shape)

    body = helper.make_graph(
        [helper.make_node("Shape", ["encoder_output"], [inner_name], start=2)],
        "body",
        [],
        [value(inner_name, TensorProto.INT64, [1])],
    )
    nodes = [
        helper.make_node("Identity", ["audio_signal"], ["encoder_output"]),
        helper.make_node("If", ["yes"], ["encoded_lengths"], then_branch=body, else_branch=body),
    ]
    inputs = [value("audio_signal", TensorProto.FLOAT, ["b", 128, "t"]), value("length", TensorProto.INT64, ["b"])]
    ends = [
        value("encoder_output", TensorProto.FLOAT, ["b", 128, "t"]),
        value("encoded_lengths", TensorProto.INT64, ["b"]),
    ]
    graph = helper.make_graph(nodes, "encoder", inputs, ends, [helper.make_tensor("yes", TensorProto.BOOL, [], [True])])
    folder.mkdir()
    onnx.save(
        helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), folder / f"{ENCODER}.onnx"
    )
    return folder


def test_a_value_is_renamed_in_the_bodies_of_control_flow_too(fp32: dict[str, Path], tmp_path: Path) -> None:
    encoder = write_branching_encoder(tmp_path / "encoder", "frames")
    out = lay_out(tmp_path / "out", fp32 | {"encoder_fp32": encoder})
    assert run_encoder(out / f"{ENCODER}.onnx")[1].tolist() == [90]


def test_a_name_that_is_taken_inside_is_refused(fp32: dict[str, Path], tmp_path: Path) -> None:
    encoder = write_branching_encoder(tmp_path / "encoder", "outputs")
    with pytest.raises(StepError, match="a value in the graph is called 'outputs' already"):
        lay_out(tmp_path / "out", fp32 | {"encoder_fp32": encoder})
