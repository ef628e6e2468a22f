from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import StepError
from artifacts.model.model_meta import ModelMeta

VALUES: dict[str, Any] = {"layers": 2, "name": "tiny", "flag": True, "none": None, "features": {"n_mels": 128}}


def meta(folder: Path) -> ModelMeta:
    (folder / "model_meta.json").write_text(json.dumps(VALUES))
    return ModelMeta(folder / "model_meta.json", "write it again")


def test_values_are_found_by_their_keys(tmp_path: Path) -> None:
    values = meta(tmp_path)
    assert values.size("layers") == 2
    assert values.size("features.n_mels", most=128) == 128
    assert values.text("name") == "tiny"
    assert values.value("none") is None


@pytest.mark.parametrize(
    ("read", "fact"),
    [
        (
            lambda values: values.size("features.n_mels", most=100),
            "features.n_mels: expected a number above 0, at most 100, got 128",
        ),
        (lambda values: values.size("flag"), "flag: expected a number above 0, at most 1000000, got True"),
        (lambda values: values.size("name"), "name: expected a number above 0, at most 1000000, got 'tiny'"),
        (lambda values: values.text("layers"), "layers: expected a text, got 2"),
        (lambda values: values.size("features.hop_length"), "features.hop_length: is missing"),
        (lambda values: values.size("layers.n_mels"), "layers.n_mels: is missing"),
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
