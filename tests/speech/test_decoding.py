from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import StepError
from artifacts.speech.decoding import Decoding, read_decoding

META = {"blank_id": 8, "duration_values": [0, 1, 2], "max_symbols": 5}


def write(folder: Path, meta: dict[str, Any]) -> Path:
    (folder / "model_meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return folder / "model_meta.json"


def test_the_checkpoint_is_a_tdt_of_five_durations(model_meta: Path) -> None:
    assert read_decoding(model_meta / "model_meta.json") == Decoding(128, (0, 1, 2, 3, 4), 10)


def test_a_checkpoint_without_a_limit_gets_onnx_asrs(tmp_path: Path) -> None:
    assert read_decoding(write(tmp_path, META)) == Decoding(8, (0, 1, 2), 5)
    assert read_decoding(write(tmp_path, META | {"max_symbols": None})) == Decoding(8, (0, 1, 2), 10)


def test_a_joint_without_durations_is_that_of_an_rnn_t(tmp_path: Path) -> None:
    assert read_decoding(write(tmp_path, META | {"duration_values": []})) == Decoding(8, (), 5)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("duration_values", None, "duration_values: expected numbers of frames, got None"),
        ("duration_values", [0, -1], "duration_values: expected numbers of frames, got [0, -1]"),
        ("blank_id", "8", "blank_id: expected a number above 0, at most 1000000, got '8'"),
        ("blank_id", True, "blank_id: expected a number above 0, at most 1000000, got True"),
        ("blank_id", 10**12, "blank_id: expected a number above 0, at most 1000000, got 1000000000000"),
        ("max_symbols", 0, "max_symbols: expected a number above 0 or null, got 0"),
        ("max_symbols", 10**9, "max_symbols: expected a number above 0 or null, got 1000000000"),
    ],
)
def test_a_value_that_cannot_be_decoded_with_is_refused(tmp_path: Path, key: str, value: Any, message: str) -> None:
    with pytest.raises(StepError) as raised:
        read_decoding(write(tmp_path, META | {key: value}))
    assert raised.value.fact == f"model_meta.json: {message}"


@pytest.mark.parametrize("key", list(META))
def test_a_missing_value_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(StepError, match=rf"model_meta\.json: {key}: is missing"):
        read_decoding(write(tmp_path, {name: META[name] for name in META if name != key}))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="there is no such file"):
        read_decoding(tmp_path / "model_meta.json")
