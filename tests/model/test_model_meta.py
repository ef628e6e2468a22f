from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.model.model_meta import KEYS, ModelMeta, ModelMetaContent

VALUES: dict[str, Any] = {
    "pred_rnn_layers": 2,
    "model_name": "tiny",
    "blank_id": True,
    "max_symbols": None,
    "features": {"n_mels": 128},
}
SHAPES = dict.fromkeys(
    ("encoder_input", "encoder_output", "predictor_input", "predictor_output", "joint_input", "joint_output"), "[B]"
)
CONTENT: dict[str, Any] = {
    "model_name": "ti\u00e9ny",
    "sample_rate": 16_000,
    "labels": ["\u2581a"],
    "blank_id": 1,
    "tokenizer_vocab_size": 1,
    "joint_vocab_size": 4,
    "duration_values": [0, 1],
    "max_symbols": None,
    "subsampling_factor": 8,
    "max_encoder_frames": 5000,
    "pred_rnn_layers": 2,
    "pred_hidden": 96,
    "tensor_layout_contract": SHAPES,
    "features": {
        "type": "log-mel", "n_fft": 512, "n_mels": 128, "win_length": 400, "hop_length": 160, "normalize": None,
    },
}  # fmt: skip


def meta(folder: Path) -> ModelMeta:
    (folder / "model_meta.json").write_text(json.dumps(VALUES))
    return ModelMeta(folder / "model_meta.json", "write it again")


def test_values_are_found_by_their_keys(tmp_path: Path) -> None:
    values = meta(tmp_path)
    assert values.size("pred_rnn_layers") == 2
    assert values.size("features.n_mels", most=128) == 128
    assert values.text("model_name") == "tiny"
    assert values.value("max_symbols") is None


def test_every_value_that_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "model_meta.json"
    ModelMetaContent.model_validate(CONTENT).write(path)
    assert path.read_text(encoding="utf-8") == json.dumps(CONTENT, ensure_ascii=False, indent=2) + "\n"
    for key in KEYS:
        expected: Any = CONTENT
        for part in key.split("."):
            expected = expected[part]
        assert ModelMeta(path, "fix").value(key) == expected


@pytest.mark.parametrize("changed", [{"blank_id": 0}, {"labels": "a"}, {"joint_width": 4}, {"features": {}}])
def test_a_value_of_another_type_is_not_written(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelMetaContent.model_validate(CONTENT | changed)


def test_a_key_that_is_never_written_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"model_meta\.json has no key layers"):
        meta(tmp_path).size("layers")


@pytest.mark.parametrize(
    ("read", "fact"),
    [
        (
            lambda values: values.size("features.n_mels", most=100),
            "features.n_mels: expected a number above 0, at most 100, got 128",
        ),
        (lambda values: values.size("blank_id"), "blank_id: expected a number above 0, at most 1000000, got True"),
        (
            lambda values: values.size("model_name"),
            "model_name: expected a number above 0, at most 1000000, got 'tiny'",
        ),
        (lambda values: values.text("pred_rnn_layers"), "pred_rnn_layers: expected a text, got 2"),
        (lambda values: values.size("features.hop_length"), "features.hop_length: is missing"),
        (lambda values: values.size("sample_rate"), "sample_rate: is missing"),
    ],
)
def test_a_value_that_is_not_what_it_must_be_is_refused_with_its_key(tmp_path: Path, read: Any, fact: str) -> None:
    with pytest.raises(StepError) as raised:
        read(meta(tmp_path))
    assert raised.value.fact == f"model_meta.json: {fact}"
    assert raised.value.fix == "write it again"


def test_a_file_of_another_value_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_meta.json").write_text("[]")
    with pytest.raises(StepError, match=r"model_meta\.json: expected a JSON object, got a list"):
        ModelMeta(tmp_path / "model_meta.json", "write it again")
