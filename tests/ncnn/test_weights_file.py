from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from artifacts.errors import StepError
from artifacts.ncnn.param_file import Layer, ParamFile, find_net, read_param
from artifacts.ncnn.weights_file import (
    TAGS,
    LayerWeights,
    Weight,
    network_bytes,
    read_weights,
    write_network,
    write_weights,
)
from ncnn_conversions import Parts, part_weights, read_checkpoint


def read(folder: Path) -> tuple[ParamFile, dict[str, LayerWeights], Path]:
    (param,) = folder.glob("*.param")
    file = read_param(param)
    return file, read_weights(file, param.with_suffix(".bin")), param.with_suffix(".bin")


@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("part", ["head", "predictor", "joint"])
def test_what_pnnx_wrote_comes_back_byte_for_byte(parts: Parts, part: str, fp16: bool, tmp_path: Path) -> None:
    file, weights, source = read(parts.folder(part, fp16=fp16))
    written = write_weights(((layer, weights[layer.name]) for layer in file.layers), tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == source.read_bytes()
    assert written == source.stat().st_size
    dtypes = {weight.values.dtype for each in weights.values() for weight in each.values() if weight.tagged}
    assert dtypes == {np.dtype("<f2" if fp16 else "<f4")}


def test_the_weights_are_those_of_the_checkpoint(parts: Parts, tiny_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(tiny_checkpoint)
    _, joint, _ = read(parts.folder("joint"))
    for layer, name in (("linear_1", "joint.enc."), ("linear_2", "joint.pred."), ("linear_3", "joint.joint_net.1.")):
        theirs = part_weights(checkpoint, name)
        assert torch.equal(torch.from_numpy(joint[layer]["weight"].as_float32().copy()), theirs["weight"])
        assert torch.equal(torch.from_numpy(joint[layer]["bias"].as_float32().copy()), theirs["bias"])
    file, predictor, _ = read(parts.folder("predictor"))
    first = next(layer for layer in file.layers if layer.type == "LSTM")
    theirs = part_weights(checkpoint, "decoder.prediction.dec_rnn.lstm.")
    # ncnn's gates are input, forget, output, cell; torch's are input, forget, cell, output.
    i, f, g, o = theirs["weight_ih_l0"].chunk(4)
    assert np.array_equal(predictor[first.name]["weight_xc"].values, torch.cat([i, f, o, g]).numpy())


def test_nothing_is_copied_and_nothing_can_be_written_through(parts: Parts) -> None:
    _, weights, _ = read(parts.folder("head"))
    values = weights["gemm_0"]["b"].values
    assert not values.flags.writeable
    assert not values.flags.owndata


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda data: data[:-4], r"bad\.bin: layer '.*' .*: ends at byte \d+, the file has \d+"),
        (lambda data: data + bytes(4), r"bad\.bin: has \d+ bytes, its layers have \d+"),
        (
            lambda data: b"\x07" + data[1:],
            r"bad\.bin: layer 'linear_1' \(InnerProduct\): weight: byte 0 has the unknown tag 0x00000007",
        ),
        (lambda data: b"", r"bad\.bin: layer 'linear_1' \(InnerProduct\): weight: ends at byte 36868, the file has 0"),
    ],
)
def test_a_file_that_is_not_the_layers_is_refused(parts: Parts, change: object, fact: str, tmp_path: Path) -> None:
    file, _, source = read(parts.folder("joint"))
    (tmp_path / "bad.bin").write_bytes(change(source.read_bytes()))  # type: ignore[operator]
    with pytest.raises(StepError, match=f"^{fact}"):
        read_weights(file, tmp_path / "bad.bin")


def test_a_file_that_is_missing_is_refused(parts: Parts, tmp_path: Path) -> None:
    shutil.copy(parts.folder("joint") / "joint.ncnn.param", tmp_path)
    with pytest.raises(StepError, match=r"joint\.ncnn\.bin: is missing"):
        read(tmp_path)


def test_int8_weights_are_filled_up_to_four_bytes(tmp_path: Path) -> None:
    layer = Layer("Embed", "embed", (), ("out0",), {0: 3, 1: 3, 3: 9, 18: 2})
    values = np.arange(-4, 5, dtype=np.int8)
    weights = {
        "weight": Weight("weight", values.reshape(3, 3), tagged=True),
        "weight_scale": Weight("weight_scale", np.array([2.5], np.float32), tagged=False),
    }
    assert write_weights([(layer, weights)], tmp_path / "a.bin") == 4 + 12 + 4
    content = (tmp_path / "a.bin").read_bytes()
    assert content == (0x000D4B38).to_bytes(4, "little") + values.tobytes() + bytes(3) + np.float32(2.5).tobytes()
    again = read_weights(ParamFile((layer,)), tmp_path / "a.bin")["embed"]
    assert np.array_equal(again["weight"].values, values.reshape(3, 3))


def test_weights_that_ncnn_would_misread_are_not_written(parts: Parts, tmp_path: Path) -> None:
    file, weights, _ = read(parts.folder("joint"))
    layer = next(layer for layer in file.layers if layer.type == "InnerProduct")
    own = weights[layer.name]
    marked = replace(layer, params={**layer.params, 8: 2})
    with pytest.raises(ValueError, match=r"has weight, bias, ncnn reads weight .* bottom_scale"):
        write_weights([(marked, own)], tmp_path / "a.bin")
    shorter = {**own, "bias": replace(own["bias"], values=own["bias"].values[:-1])}
    with pytest.raises(ValueError, match="'bias' has 95 numbers"):
        write_weights([(layer, shorter)], tmp_path / "a.bin")
    halved = {**own, "bias": replace(own["bias"], values=own["bias"].values.astype(np.float16))}
    with pytest.raises(TypeError, match="float16, and has no tag"):
        write_weights([(layer, halved)], tmp_path / "a.bin")


def test_every_tag_is_ncnns() -> None:
    assert {dtype.str: tag for dtype, tag in TAGS.items()} == {"<f4": 0, "<f2": 0x01306B47, "|i1": 0x000D4B38}


def test_what_fills_the_last_four_bytes_is_kept(tmp_path: Path) -> None:
    """pnnx fills up an odd number of float16 with a number of its own, other tools with zeros."""
    layer = Layer("MemoryData", "table", (), ("out0",), {0: 3, 21: 0})
    numbers = np.array([1, 2, 3], np.float16).tobytes()
    (tmp_path / "a.bin").write_bytes((0x01306B47).to_bytes(4, "little") + numbers + b"\x83\x22")
    weights = read_weights(ParamFile((layer,)), tmp_path / "a.bin")
    assert weights["table"]["data"].values.tolist() == [1, 2, 3]
    write_weights([(layer, weights["table"])], tmp_path / "b.bin")
    assert (tmp_path / "b.bin").read_bytes() == (tmp_path / "a.bin").read_bytes()


def test_a_network_is_written_under_its_name_with_the_other_files_of_its_folder(parts: Parts, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(parts.folder("joint"), folder)
    (folder / "inputs.json").write_text("{}")
    (folder / "notes").mkdir()
    out.mkdir()
    param, weights_path = find_net(folder)
    file = read_param(param)
    weights = read_weights(file, weights_path)
    written = write_network(((layer, weights[layer.name]) for layer in file.layers), param, out)
    assert written == out / "joint.ncnn.param"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()
    }
    assert network_bytes(written) == sum(path.stat().st_size for path in out.iterdir()) - 2
