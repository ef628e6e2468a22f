from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from artifacts.errors import StepError
from artifacts.ncnn.param_file import Layer, ParamFile, find_net, number_text, read_param, require_layers, write_param
from ncnn_conversions import Parts

HEADER = "7767517\n2 2\n"
INPUT = "Input in0 0 1 in0\n"


@pytest.mark.parametrize("part", ["head", "predictor", "joint"])
def test_what_pnnx_wrote_comes_back_byte_for_byte(parts: Parts, part: str, tmp_path: Path) -> None:
    source = parts.folder(part) / f"{part}.ncnn.param"
    file = read_param(source)
    assert len(file.layers) >= 7
    write_param(file, tmp_path / "again.param")
    assert (tmp_path / "again.param").read_bytes() == source.read_bytes()


def test_layers_are_read_with_their_blobs_and_parameters(parts: Parts) -> None:
    file = read_param(parts.folder("head") / "head.ncnn.param")
    first = next(layer for layer in file.layers if layer.type == "Convolution")
    assert first.inputs[0] in file.blobs
    assert {key: first.params[key] for key in (0, 1, 11, 3, 5, 6, 9)} == {0: 32, 1: 3, 11: 3, 3: 2, 5: 1, 6: 288, 9: 1}
    assert (first.integer(0), first.integer(19), first.integer(19, 7)) == (32, 0, 7)
    norm = next(layer for layer in file.layers if layer.type == "LayerNorm")
    assert norm.params[1] == 1e-5
    assert "0c" in str(next(layer for layer in file.layers if layer.type == "Reshape").params[6])


def test_arrays_strings_and_numbers_of_every_form_come_back(tmp_path: Path) -> None:
    params = {0: 3, 1: -1, 2: 0.5, 3: (5, 4, 3), 4: (1.5, -2.0), 5: (), 6: "-(1250,1h)", 7: "relu", 8: 0.0, 9: "a b"}
    layer = Layer("Crop", "crop", ("in0",), ("out0",), params)
    written = ParamFile((Layer("Input", "in0", (), ("in0",), {}), layer))
    write_param(written, tmp_path / "a.param")
    line = (tmp_path / "a.param").read_text().splitlines()[3]
    assert line.split(" 1 1 in0 out0 ")[1] == (
        '0=3 1=-1 2=0.5 -23303=3,5,4,3 -23304=2,1.5,-2.0 -23305=0 6="-(1250,1h)" 7=relu 8=0.0 9="a b"'
    )
    assert read_param(tmp_path / "a.param") == written


def test_an_array_in_ncnns_newer_form_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.param").write_text(f"{HEADER}{INPUT}Permute p 1 1 in0 out0 3=0.1,0.2 4=7,8\n")
    assert read_param(tmp_path / "a.param").layers[1].params == {3: (0.1, 0.2), 4: (7, 8)}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (7, "7"),
        (0.5, "0.5"),
        (2.0, "2.0"),
        (1e-5, "1.000000e-5"),
        (-3e38, "-3.000000e38"),
        (1 / 3, "0.333333343"),
        (1e6, "1.000000e6"),
        (123456.789, "123456.789"),
        (0.00012345678, "1.23456775e-4"),
    ],
)
def test_numbers_are_written_as_pnnx_does(number: float, text: str) -> None:
    assert number_text(number) == text


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", r"a\.param:1: expected 7767517, got ''"),
        ("7767517\n", r"a\.param:2: expected the numbers of layers and blobs"),
        (f"7767517\n3 2\n{INPUT}ReLU r 1 1 in0 out0\n", r"a\.param:2: says 3 layers, contains 2"),
        (f"7767517\n2 3\n{INPUT}ReLU r 1 1 in0 out0\n", r"a\.param:2: says 3 blobs, contains 2"),
        (f"{HEADER}{INPUT}ReLU r\n", r"a\.param:4: expected a type, a name"),
        (f"{HEADER}{INPUT}ReLU r 1 1 in0\n", r"a\.param:4: names 1 blobs, needs 2"),
        (f"{HEADER}{INPUT}ReLU in0 1 1 in0 out0\n", r"a\.param:4: two layers are called 'in0'"),
        (
            f"{HEADER}{INPUT}ReLU r 1 1 in1 out0\n",
            r"a\.param:4: layer 'r' reads 'in1', which no layer",
        ),
        (f"{HEADER}{INPUT}ReLU r 1 1 in0 in0\n", r"a\.param:4: two layers write blob 'in0'"),
        (f"{HEADER}{INPUT}ReLU r 1 1 in0 out0 0=1 x\n", r"a\.param:4: expected id=value, got 'x'"),
        (f"{HEADER}{INPUT}ReLU r 1 1 in0 out0 0=1 0=2\n", r"a\.param:4: param 0: is not an id, or is there twice"),
        (f"{HEADER}{INPUT}ReLU r 1 1 in0 out0 99=1\n", r"a\.param:4: param 99: is not an id"),
        (f"{HEADER}{INPUT}ReLU r 1 1 in0 out0 -23303=3,1,2\n", r"a\.param:4: expected an array of 3, got 2 elements"),
        ("7767517\n" + "9" * 5000 + " 1\n", r"a\.param:2: expected the numbers of layers and blobs"),
        (f"{HEADER}{INPUT}ReLU r 1 1 in0 out0 0=2147483648\n", r"a\.param:4: 2147483648 does not fit into 32 bits"),
        (f"{HEADER}{INPUT}ReLU r 1 1 in0 out0 0=1e39\n", r"a\.param:4: 1e39 does not fit into 32 bits"),
        (f"{HEADER}{INPUT}ReLU r 1 1 in0 out0 0={'9' * 5000}\n", r"a\.param:4: expected a number, got '999"),
        (f"{HEADER}{INPUT}ReLU r 1 1 in0 out0 0=1.2.3\n", r"a\.param:4: expected a number, got '1\.2\.3'"),
    ],
)
def test_a_damaged_file_is_an_error_with_its_line(text: str, fact: str, tmp_path: Path) -> None:
    (tmp_path / "a.param").write_text(text)
    with pytest.raises(StepError, match=f"^{fact}"):
        read_param(tmp_path / "a.param")


def test_a_file_that_is_missing_or_not_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"a\.param: is missing"):
        read_param(tmp_path / "a.param")
    (tmp_path / "a.param").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StepError, match=r"a\.param:1: is not UTF-8"):
        read_param(tmp_path / "a.param")


@pytest.mark.parametrize("params", [{0: 'a "word"'}, {32: 1}, {-1: 1}])
def test_a_parameter_that_the_format_cannot_represent_is_an_error(params: dict[int, object], tmp_path: Path) -> None:
    layer = Layer("Crop", "crop", (), ("out0",), params)  # type: ignore[arg-type]
    with pytest.raises(StepError, match=r"a\.param: layer 'crop' \(Crop\): param"):
        write_param(ParamFile((layer,)), tmp_path / "a.param")


def test_a_name_that_no_layer_has_is_an_error_with_the_nearest_name(parts: Parts) -> None:
    file = read_param(parts.folder("joint") / "joint.ncnn.param")
    require_layers(file, ["linear_1"], "table")
    with pytest.raises(StepError, match=re.escape("table: no layer is called 'linear_9'")) as caught:
        require_layers(file, ["linear_9"], "table")
    assert caught.value.fix.startswith("did you mean 'linear_")


def test_a_parameter_that_is_not_an_integer_is_an_error() -> None:
    with pytest.raises(StepError, match=r"layer 'a' \(Crop\): param 3: expected an integer, got 0\.5"):
        Layer("Crop", "a", (), (), {3: 0.5}).integer(3)


def test_a_folder_contains_one_network(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"expected one \.param file, found none"):
        find_net(tmp_path)
    shutil.copytree(parts.folder("joint"), tmp_path / "two")
    assert [path.name for path in find_net(tmp_path / "two")] == ["joint.ncnn.param", "joint.ncnn.bin"]
    shutil.copyfile(tmp_path / "two" / "joint.ncnn.param", tmp_path / "two" / "other.param")
    with pytest.raises(StepError, match=r"two: expected one \.param file, found joint\.ncnn\.param, other\.param"):
        find_net(tmp_path / "two")
