"""A reference to external data is read strictly: it stays in the model's folder and says what dims and dtype say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto

from artifacts.errors import StepError
from artifacts.graph.external_data import Reference, check_references, reference_of, set_external_data


def external(**entries: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def model_with(tensor: TensorProto) -> ModelProto:
    model = ModelProto()
    model.graph.initializer.append(tensor)
    return model


def test_offset_and_length_may_be_left_out() -> None:
    assert reference_of(external(location="d")) == Reference("d", 0, 16)
    assert reference_of(external(location="d", offset="64", length="16", checksum="x")) == Reference("d", 64, 16)


def test_a_written_reference_is_read_back_and_the_values_leave_the_protobuf() -> None:
    for tensor in (
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], raw_data=bytes(16)),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], float_data=[0, 1, 2, 3]),
        external(location="old", offset="5"),
    ):
        set_external_data(tensor, Reference("new", 128, 16))
        assert tensor == external(location="new", offset="128", length="16")


@pytest.mark.parametrize(
    ("entries", "fact"),
    [
        ({}, "location ''"),
        ({"location": "d", "offset": "-1"}, "offset '-1'"),
        ({"location": "d", "offset": "1.5"}, r"offset '1\.5'"),
        ({"location": "d", "length": "many"}, "length 'many'"),
        ({"location": "d", "offset": "\u0663"}, "offset '\u0663'"),
        ({"location": "d", "offset": "1_0"}, "offset '1_0'"),
        ({"location": "d", "offset": "9" * 10_000}, "offset '999"),
        ({"location": "d", "offset": "1000000000000"}, "'d' ends at byte 24, tensor 'w' needs 1000000000016"),
        ({"location": "d\0"}, "'d.*' is missing"),
        ({"location": "pipe"}, "'pipe' is missing"),
        ({"location": "device"}, "'device' is a symbolic link"),
        ({"location": "d", "length": "15"}, r"'d' has length 15, dims \[4\] need 16 bytes"),
        ({"location": "d", "length": "17"}, "'d' has length 17"),
        ({"location": "/etc/passwd"}, "'/etc/passwd' points outside"),
        ({"location": "../d"}, r"'\.\./d' points outside"),
        ({"location": "sub/../../d"}, "points outside"),
        ({"location": "C:\\d"}, "points outside"),
        ({"location": "C:d"}, "points outside"),
        ({"location": "..\\d"}, "points outside"),
        ({"location": "linked/d"}, "'linked/d' is a symbolic link"),
        ({"location": "sub"}, "'sub' is missing"),
        ({"location": "d" * 300}, r"'d{40}\.\.\.' has a name too long for a file"),
        ({"location": "/".join(["d"] * 3000)}, "has a name too long for a file"),
        ({"location": "d", "offset": "9"}, r"'d' ends at byte 24, tensor 'w' needs 25"),
    ],
)
def test_a_bad_reference_is_refused_with_the_tensor_s_name(tmp_path: Path, entries: dict[str, str], fact: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "d").write_bytes(bytes(24))
    (folder / "linked").symlink_to(tmp_path, target_is_directory=True)
    (folder / "device").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    (tmp_path / "d").write_bytes(bytes(24))
    with pytest.raises(StepError, match=rf"^m\.onnx: .*{fact}") as caught:
        check_references(model_with(external(**entries)), folder / "m.onnx")
    assert caught.value.fix


@pytest.mark.parametrize("location", ["d", "sub/d"])
def test_data_inside_the_folder_are_accepted_whatever_the_folder_is_called(tmp_path: Path, location: str) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "real" / location).write_bytes(bytes(16))
    (tmp_path / "stable").symlink_to("real")
    check_references(model_with(external(location=location)), tmp_path / "stable" / "m.onnx")


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(bytes(16))
    tensor = external(location="d")
    tensor.external_data.add(key="location", value="e")
    with pytest.raises(StepError, match=r"m\.onnx: tensor 'w': external data has a key twice"):
        check_references(model_with(tensor), tmp_path / "m.onnx")
