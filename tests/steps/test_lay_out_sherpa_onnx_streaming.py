from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.steps import lay_out_sherpa_onnx_streaming
from artifacts.steps.lay_out_sherpa_onnx_streaming import Params
from streaming_targets import streaming

METADATA = {
    "model_type": "EncDecRNNTBPEModel",
    "version": "1",
    "vocab_size": "128",
    "window_size": "121",
    "chunk_shift": "112",
    "subsampling_factor": "8",
    "feat_dim": "128",
    "normalize_type": "NA",
    "pred_rnn_layers": "2",
    "pred_hidden": "96",
    "cache_last_channel_dim1": "5",
    "cache_last_channel_dim2": "70",
    "cache_last_channel_dim3": "96",
    "cache_last_time_dim1": "5",
    "cache_last_time_dim2": "96",
    "cache_last_time_dim3": "8",
}


@pytest.fixture(scope="module")
def inputs() -> dict[str, Path]:
    targets = {
        "encoder": "streaming_encoder_batch_first",
        "predictor": "predictor_fp32",
        "joint": "joint_fp32",
        "tokens": "tokens",
        "model_meta": "model_meta",
    }
    return {name: streaming(target) for name, target in targets.items()}


@pytest.fixture(scope="module")
def folder(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("layout")
    metrics = lay_out_sherpa_onnx_streaming.run(out, Params(), **inputs)
    assert metrics == {"files": 5, "bytes": sum(path.stat().st_size for path in out.iterdir())}
    return out


def test_there_is_nothing_to_choose() -> None:
    with pytest.raises(ValidationError):
        Params(precision="int8")


def test_the_files_have_the_names_that_sherpa_onnx_documents(folder: Path) -> None:
    names = {"encoder.onnx", "decoder.onnx", "joiner.onnx", "tokens.txt", "SHA256SUMS"}
    assert {path.name for path in folder.iterdir()} == names
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        names.remove(name)
    assert names == {"SHA256SUMS"}


def test_the_encoder_has_the_metadata_that_sherpa_onnx_reads_and_no_other(folder: Path) -> None:
    model = onnx.load(folder / "encoder.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props} == METADATA
    assert len((folder / "tokens.txt").read_text(encoding="utf-8").splitlines()) == int(METADATA["vocab_size"]) + 1


def test_values_are_in_the_order_and_of_the_types_that_sherpa_onnx_gives_and_takes(folder: Path) -> None:
    values = {}
    for name in ("encoder", "decoder", "joiner"):
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
        values[name] = [
            [(value.type, len(value.shape)) for value in side] for side in (session.get_inputs(), session.get_outputs())
        ]
    real, whole, short = "tensor(float)", "tensor(int64)", "tensor(int32)"
    caches = [(real, 4), (real, 4), (whole, 1)]
    assert values["encoder"] == [[(real, 3), (whole, 1), *caches], [(real, 3), (whole, 1), *caches]]
    assert values["decoder"] == [
        [(short, 2), (short, 1), (real, 3), (real, 3)],
        [(real, 3), (short, 1), *[(real, 3)] * 2],
    ]
    assert values["joiner"] == [[(real, 3), (real, 3)], [(real, 4)]]


def test_the_weights_are_those_of_the_artifacts(folder: Path, inputs: dict[str, Path]) -> None:
    for laid, given in (("encoder", "encoder"), ("decoder", "predictor"), ("joiner", "joint")):
        before = onnx.load(next(inputs[given].glob("*.onnx"))).graph
        after = onnx.load(folder / f"{laid}.onnx").graph
        assert [tensor.SerializeToString() for tensor in after.initializer] == [
            tensor.SerializeToString() for tensor in before.initializer
        ]


def test_the_same_bytes_come_out_again(folder: Path, inputs: dict[str, Path], tmp_path: Path) -> None:
    lay_out_sherpa_onnx_streaming.run(tmp_path, Params(), **inputs)
    assert (tmp_path / "SHA256SUMS").read_bytes() == (folder / "SHA256SUMS").read_bytes()


def refused(tmp_path: Path, inputs: dict[str, Path], **changed: Path) -> Any:
    (tmp_path / "out").mkdir()
    with pytest.raises(StepError) as raised:
        lay_out_sherpa_onnx_streaming.run(tmp_path / "out", Params(), **{**inputs, **changed})
    return raised.value


def test_caches_with_the_layers_first_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    error = refused(tmp_path, inputs, encoder=streaming("streaming_encoder_fp32"))
    assert "its caches are 'layer_first'" in str(error)
    assert error.fix == "export the encoder with layout: batch_first"


def test_windows_that_overlap_in_another_way_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    changed = Path(shutil.copytree(inputs["encoder"], tmp_path / "encoder"))
    path = changed / "encoder-model.onnx"
    path.chmod(0o644)
    model = onnx.load(path)
    for entry in model.metadata_props:
        entry.value = "56" if entry.key == "shift_frames" else entry.value
    path.write_bytes(model.SerializeToString())
    assert "shift_frames 56: sherpa-onnx keeps all" in str(refused(tmp_path, inputs, encoder=changed))


def test_a_transducer_with_durations_is_refused(
    inputs: dict[str, Path], tokens: Path, model_meta: Path, tmp_path: Path
) -> None:
    error = refused(tmp_path, inputs, tokens=tokens, model_meta=model_meta)
    assert "duration_values: [0, 1, 2, 3, 4]: sherpa-onnx streams no transducer with durations" in str(error)


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("encoder", "has the inputs audio_signal, length and the outputs encoder_output, encoded_lengths; needs"),
        ("joint", "scores 134 classes, the tokens and the blank are 129"),
    ],
)
def test_a_model_of_another_checkpoint_is_refused(
    name: str, fact: str, inputs: dict[str, Path], encoder_fp32: Path, joint_fp32: Path, tmp_path: Path
) -> None:
    offline = {"encoder": encoder_fp32, "joint": joint_fp32}
    assert fact in str(refused(tmp_path, inputs, **{name: offline[name]}))
