from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from pydantic import ValidationError

from artifacts.steps import write_model_meta
from artifacts.steps.write_model_meta import Params
from streaming_targets import CHECKPOINT


@pytest.fixture(scope="session")
def meta(exports: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((exports.folder / "model_meta" / "model_meta.json").read_text("utf-8"))
    return values


@pytest.mark.parametrize(
    ("params", "is_good"),
    [
        ({}, True),
        ({"model_name": "parakeet-tdt-0.6b-v3"}, True),
        ({"model_name": ""}, False),
        ({"model_name": None}, False),
        ({"torch_version": "2"}, False),
    ],
)
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        Params(**params)
    else:
        with pytest.raises(ValidationError):
            Params(**params)


def test_two_files_are_written(exports: Any) -> None:
    folder: Path = exports.folder / "model_meta"
    assert {file.name for file in folder.iterdir()} == {"model_meta.json", "config.json"}


def test_numbers_and_tokens_are_those_of_the_restored_model(meta: dict[str, Any], restored_model: Any) -> None:
    featurizer = restored_model.preprocessor.featurizer
    assert meta["model_name"] == "tiny"
    assert meta["sample_rate"] == featurizer.sample_rate
    assert meta["labels"] == list(restored_model.joint.vocabulary)
    assert meta["blank_id"] == restored_model.decoder.blank_idx
    assert meta["tokenizer_vocab_size"] == restored_model.tokenizer.vocab_size
    assert meta["joint_vocab_size"] == restored_model.joint.num_classes_with_blank
    assert meta["duration_values"] == list(restored_model.cfg.decoding.durations) == [0, 1, 2, 3, 4]
    assert meta["max_symbols"] == restored_model.cfg.decoding.greedy.max_symbols
    assert meta["subsampling_factor"] == restored_model.encoder.subsampling_factor
    assert meta["max_encoder_frames"] == restored_model.encoder.pos_emb_max_len
    assert meta["pred_rnn_layers"] == restored_model.decoder.pred_rnn_layers
    assert meta["pred_hidden"] == restored_model.decoder.pred_hidden
    assert meta["features"] == {
        "type": "log-mel",
        "n_fft": featurizer.n_fft,
        "n_mels": featurizer.nfilt,
        "win_length": featurizer.win_length,
        "hop_length": featurizer.hop_length,
        "normalize": featurizer.normalize,
    }


def test_the_layout_of_tensors_is_that_of_the_exported_graphs(meta: dict[str, Any], exports: Any) -> None:
    axes = {"frames": "T", "encoder_frames": "T'", "tokens": "U", "batch": "B"}
    for network in ("encoder", "predictor", "joint"):
        session = onnxruntime.InferenceSession(exports.folder / f"{network}_fp32" / f"{network}-model.onnx")
        for side, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
            told = [f"{v.name}: [{', '.join(axes.get(dim, str(dim)) for dim in v.shape)}]" for v in values]
            assert meta["tensor_layout_contract"][f"{network}_{side}"] == ", ".join(told)


def test_the_configuration_is_what_onnx_asr_reads(exports: Any) -> None:
    config = json.loads((exports.folder / "model_meta" / "config.json").read_text("utf-8"))
    assert config == {
        "model_type": "nemo-conformer-tdt", "features_size": 128, "subsampling_factor": 8, "max_tokens_per_step": 10,
    }  # fmt: skip


def test_a_transducer_without_durations_says_so(tmp_path: Path) -> None:
    write_model_meta.run(tmp_path, Params(), checkpoint=CHECKPOINT)
    meta, config = (json.loads((tmp_path / name).read_text()) for name in ("model_meta.json", "config.json"))
    assert meta["duration_values"] == []
    assert meta["joint_vocab_size"] == meta["blank_id"] + 1
    assert config["model_type"] == "nemo-conformer-rnnt"
