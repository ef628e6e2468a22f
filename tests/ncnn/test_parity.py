from __future__ import annotations

import json
import shutil
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from artifacts.errors import StepError
from artifacts.ncnn.param_file import find_net, read_param
from artifacts.ncnn.parity import compare_with_torch, embedding_rows
from artifacts.ncnn.pnnx import convert
from artifacts.ncnn.traced import Input, Interface, read_interface, read_trace
from lstm_networks import TOKENS, LstmNetworks


def test_the_difference_of_each_float_output_is_measured(lstm: LstmNetworks) -> None:
    folder = lstm.converted("encoder")
    interface = read_interface(folder, "fix")
    found = compare_with_torch(lstm.traced("encoder") / "encoder.pt", *find_net(folder), interface, fp16=False)
    assert list(found) == ["encoder_output_max_abs_diff", "h_out_max_abs_diff", "c_out_max_abs_diff"]
    assert all(0 < value < 1e-5 for value in found.values())


def test_fp16_weights_are_too_far_off_for_float32s_bound(lstm: LstmNetworks) -> None:
    folder = lstm.converted("encoder", fp16=True)
    files = (lstm.traced("encoder") / "encoder.pt", *find_net(folder), read_interface(folder, "fix"))
    assert max(compare_with_torch(*files, fp16=True).values()) < 2e-3
    with pytest.raises(StepError, match=r"'encoder_output' differs from torch by .* at most 0\.0001 is"):
        compare_with_torch(*files, fp16=False)


def test_one_changed_weight_is_detected(lstm: LstmNetworks, tmp_path: Path) -> None:
    folder = tmp_path / "joint"
    shutil.copytree(lstm.converted("joint"), folder)
    content = bytearray((folder / "joint.ncnn.bin").read_bytes())
    (value,) = struct.unpack_from("<f", content, 400)
    struct.pack_into("<f", content, 400, value + 0.05)
    (folder / "joint.ncnn.bin").write_bytes(content)
    with pytest.raises(StepError, match=r"'joint_output' differs from torch by 0\.\d+ at encoder_output \[1, 64\]"):
        compare_with_torch(
            lstm.traced("joint") / "joint.pt", *find_net(folder), read_interface(folder, "fix"), fp16=False
        )


class TimeFirst(nn.Module):
    """LSTMs in the form that pnnx converts, without a word, into ones that compute something else."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.LSTM(8, 16, proj_size=8) for _ in range(2))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x.permute(1, 0, 2)
        hs, cs = [], []
        for number, layer in enumerate(self.layers):
            y, (h_out, c_out) = layer(x, (h[number : number + 1], c[number : number + 1]))
            x = x + y
            hs.append(h_out)
            cs.append(c_out)
        return x.permute(1, 0, 2), torch.cat(hs), torch.cat(cs)


def test_lstms_that_convert_into_other_numbers_are_refused(tmp_path: Path) -> None:
    shapes = [[1, 12, 8], [2, 1, 8], [2, 1, 16]]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.jit.trace(TimeFirst().eval(), tuple(map(torch.zeros, shapes))).save(str(tmp_path / "network.pt"))
    inputs = [Input(name=str(shape), dtype="float32", shape=shape, shape2=shape) for shape in shapes]
    axes = convert(tmp_path / "network.pt", "network", tmp_path, inputs, fp16=False)
    inputs = [each.model_copy(update={"batch_axis": axis}) for each, axis in zip(inputs, axes, strict=True)]
    interface = Interface(inputs=inputs, outputs=["y", "h_out", "c_out"])
    with pytest.raises(StepError, match="differs from torch by"):
        compare_with_torch(tmp_path / "network.pt", *find_net(tmp_path), interface, fp16=False)


def test_a_length_that_is_fixed_in_the_file_is_detected(lstm: LstmNetworks, tmp_path: Path) -> None:
    trace = read_trace(lstm.traced("encoder"))
    fixed = [each.model_copy(update={"shape2": each.shape}) for each in trace.interface.inputs]
    axes = convert(trace.module, "encoder", tmp_path, fixed, fp16=False)
    inputs = [each.model_copy(update={"batch_axis": axis}) for each, axis in zip(fixed, axes, strict=True)]
    traced_only = trace.interface.model_copy(update={"inputs": inputs})
    assert (
        compare_with_torch(trace.module, *find_net(tmp_path), traced_only, fp16=False)["encoder_output_max_abs_diff"]
        < 1e-5
    )
    inputs[0] = inputs[0].model_copy(update={"shape2": [1, 9, 80]})
    with pytest.raises(StepError, match=r"differs from torch by inf at features \[1, 9, 80\]"):
        compare_with_torch(
            trace.module, *find_net(tmp_path), trace.interface.model_copy(update={"inputs": inputs}), fp16=False
        )


def test_an_input_of_an_embedding_is_tokens(lstm: LstmNetworks) -> None:
    file = read_param(find_net(lstm.converted("predictor"))[0])
    assert embedding_rows(file, "in0") == TOKENS
    encoder = read_param(find_net(lstm.converted("encoder"))[0])
    assert [embedding_rows(encoder, name) for name in ("in0", "in1", "in2")] == [None, None, None]


def test_inputs_json_of_a_converted_network_is_enough_to_feed_it(lstm: LstmNetworks) -> None:
    found = json.loads((lstm.converted("encoder") / "inputs.json").read_text())
    assert [each["batch_axis"] for each in found["inputs"]] == [0, None, 1, 1]
    assert np.prod(found["inputs"][0]["shape"]) == 39 * 80
