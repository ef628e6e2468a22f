from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from artifacts.errors import StepError
from artifacts.ncnn.param_file import read_param
from artifacts.ncnn.pnnx import convert
from artifacts.ncnn.traced import Input, read_trace
from lstm_networks import LstmNetworks


def traced(network: nn.Module, folder: Path, *sample: Tensor) -> Path:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.jit.trace(network.eval(), sample).save(str(folder / "network.pt"))
    return folder / "network.pt"


def given(shape: list[int], shape2: list[int] | None = None) -> Input:
    return Input(name="x", dtype="float32", shape=shape, shape2=shape2 or shape)


def test_only_the_two_files_of_ncnn_are_left(lstm: LstmNetworks, tmp_path: Path) -> None:
    trace = read_trace(lstm.traced("predictor"))
    axes = convert(trace.module, trace.part, tmp_path, trace.interface.inputs, fp16=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictor.ncnn.bin", "predictor.ncnn.param"]
    assert axes == [0]


def test_the_batch_is_left_out_of_states_in_the_middle_and_of_a_length_not_at_all(
    lstm: LstmNetworks, tmp_path: Path
) -> None:
    trace = read_trace(lstm.traced("encoder"))
    assert convert(trace.module, trace.part, tmp_path, trace.interface.inputs, fp16=True) == [0, None, 1, 1]


def test_the_bytes_are_the_same_wherever_and_with_however_many_threads(
    lstm: LstmNetworks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = read_trace(lstm.traced("encoder"))
    contents = []
    for name, threads in (("a", "1"), ("another, longer", "2")):
        folder = tmp_path / name
        (folder / "temporary").mkdir(parents=True)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        monkeypatch.setenv("TMPDIR", os.fspath(folder / "temporary"))
        monkeypatch.setattr("tempfile.tempdir", None)
        convert(trace.module, trace.part, folder, trace.interface.inputs, fp16=False)
        contents.append([(folder / f"encoder.ncnn.{end}").read_bytes() for end in ("param", "bin")])
    assert contents[0] == contents[1]
    assert b"/" not in contents[0][0]


def test_one_shape_fixes_the_length_and_two_leave_it_open(lstm: LstmNetworks, tmp_path: Path) -> None:
    trace = read_trace(lstm.traced("encoder"))
    fixed = [each.model_copy(update={"shape2": each.shape}) for each in trace.interface.inputs]
    texts = []
    for name, inputs in (("open", trace.interface.inputs), ("fixed", fixed)):
        (tmp_path / name).mkdir()
        convert(trace.module, trace.part, tmp_path / name, inputs, fp16=False)
        file = read_param(tmp_path / name / "encoder.ncnn.param")
        texts.append([dict(layer.params) for layer in file.layers if layer.type == "Reshape"])
    assert texts[0] != texts[1]
    assert "c" in str(texts[0][0][6])


class Masked(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.masked_fill(torch.lt(x, 0.5), 0.0)


def test_a_torch_operator_in_the_network_is_an_error_although_pnnx_exits_with_0(tmp_path: Path) -> None:
    path = traced(Masked(), tmp_path, torch.rand(1, 4, 8))
    with pytest.raises(StepError) as raised:
        convert(path, "network", tmp_path, [given([1, 4, 8])], fp16=False)
    assert raised.value.fact.startswith("network.ncnn.param: layer '")
    assert "ncnn has no layer '" in raised.value.fact


def test_the_last_output_of_pnnx_is_quoted(tmp_path: Path) -> None:
    path = traced(nn.Linear(8, 8), tmp_path, torch.rand(1, 4, 8))
    with pytest.raises(StepError) as raised:
        convert(path, "network", tmp_path, [given([1, 4, 9])], fp16=False)
    assert raised.value.fact.startswith("network.pt: pnnx does not convert it: exit code 255: ")
    assert "expect [1,4,8]f32 but got [1,4,9]f32" in raised.value.fact
    assert "\n" not in raised.value.fact


def test_a_file_that_is_no_trace_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "network.pt").write_bytes(b"no archive")
    with pytest.raises(StepError, match=r"network\.pt: pnnx does not convert it: "):
        convert(tmp_path / "network.pt", "network", tmp_path, [given([1, 8])], fp16=False)
