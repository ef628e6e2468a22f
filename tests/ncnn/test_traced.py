from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import StepError
from artifacts.ncnn.traced import read_interface, read_trace, write_interface

INPUT = {"name": "x", "dtype": "float32", "shape": [1, 39, 80], "shape2": [1, 9, 80]}


def written(folder: Path, value: Any) -> Path:
    (folder / "inputs.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


def test_a_trace_is_its_module_its_part_and_its_interface(tmp_path: Path) -> None:
    (tmp_path / "encoder.pt").write_bytes(b"")
    trace = read_trace(written(tmp_path, {"inputs": [INPUT], "outputs": ["y"], "more": 1}))
    assert (trace.module, trace.part) == (tmp_path / "encoder.pt", "encoder")
    assert trace.interface.inputs[0].shape == [1, 39, 80]
    assert trace.interface.inputs[0].batch_axis is None
    assert trace.interface.outputs == ["y"]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    interface = read_interface(written(tmp_path, {"inputs": [INPUT | {"batch_axis": 0}], "outputs": ["y"]}), "fix")
    (tmp_path / "again").mkdir()
    write_interface(interface, tmp_path / "again")
    assert read_interface(tmp_path / "again", "fix") == interface


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"outputs": ["y"]}, "inputs.json: inputs: this key is missing"),
        ({"inputs": [], "outputs": ["y"]}, "inputs.json: inputs: must have at least 1 item"),
        ({"inputs": [INPUT], "outputs": []}, "inputs.json: outputs: must have at least 1 item"),
        ({"inputs": [INPUT | {"dtype": "bool"}], "outputs": ["y"]}, "inputs.json: inputs.0.dtype: must be"),
        ({"inputs": [INPUT | {"shape": "1"}], "outputs": ["y"]}, "inputs.json: inputs.0.shape: must be"),
        (
            {"inputs": [INPUT | {"shape2": [9]}], "outputs": ["y"]},
            "inputs.json: inputs: 'x': [1, 39, 80] and [9] are not",
        ),
        (
            {"inputs": [INPUT | {"shape2": [0, 9, 80]}], "outputs": ["y"]},
            "inputs.json: inputs: 'x': [1, 39, 80] and [0, 9, 80] are not shapes of one input",
        ),
    ],
)
def test_an_interface_that_is_none_is_an_error_with_its_key(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(StepError) as raised:
        read_interface(written(tmp_path, value), "trace it again")
    assert raised.value.fact.startswith(message)
    assert raised.value.fix == "trace it again"


def test_a_folder_without_one_trace_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"expected one \.pt file, found none"):
        read_trace(tmp_path)
    (tmp_path / "encoder.pt").write_bytes(b"")
    with pytest.raises(StepError, match=r"inputs\.json: is missing in"):
        read_trace(tmp_path)
    (tmp_path / "joint.pt").write_bytes(b"")
    with pytest.raises(StepError, match=r"expected one \.pt file, found encoder\.pt, joint\.pt"):
        read_trace(tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_a_module_that_is_not_a_file_of_its_folder_is_an_error(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "encoder.pt")
    with pytest.raises(StepError, match=r"encoder\.pt: "):
        read_trace(written(tmp_path, {"inputs": [INPUT], "outputs": ["y"]}))


def test_a_text_that_is_nested_without_an_end_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "inputs.json").write_text("[" * 100_000)
    with pytest.raises(StepError, match=r"inputs\.json: is nested too deep"):
        read_interface(tmp_path, "give a trace")
