"""`trace_nemo`, and the conversion to ncnn at lengths that neither torch nor pnnx was shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.ncnn.pnnx import convert
from artifacts.ncnn.runtime import run_isolated
from artifacts.ncnn.tdt_transducer import NcnnEncoder
from artifacts.ncnn.traced import Input
from artifacts.steps import convert_pnnx, trace_nemo
from artifacts.steps.trace_nemo import Params

pytestmark = pytest.mark.slow

PARTS = ("encoder", "predictor", "joint")
SHORT_SECONDS = 10.0

TRACE = f"""
import sys
from pathlib import Path
from artifacts.steps.trace_nemo import Params, run
for part in {PARTS}:
    Path(part).mkdir()
    params = Params(part=part, max_seconds={SHORT_SECONDS} if part == "encoder" else None)
    assert run(Path(part), params, checkpoint=Path(sys.argv[1]))["max_abs_diff"] <= 1e-5
"""


def trace_in_a_process_of_its_own(checkpoint: Path, folder: Path, **environment: str) -> None:
    """As each step has one: torch counts up the names of classes while a process lives."""
    command = [sys.executable, "-W", "error", "-c", TRACE, checkpoint]
    subprocess.run(command, cwd=folder, env={**os.environ, **environment}, check=True)


@pytest.fixture(scope="module")
def traced(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with each part's artifact; the encoder's table ends at 10 s."""
    folder = tmp_path_factory.mktemp("traced")
    trace_in_a_process_of_its_own(tiny_checkpoint, folder)
    return folder


@pytest.mark.parametrize(
    ("params", "is_good"),
    [
        ({"max_seconds": 240.0}, True),
        ({"part": "encoder", "max_seconds": 0.0}, False),
        ({"part": "predictor", "max_seconds": 240.0}, False),
        ({"part": "joint"}, True),
        ({"part": "joiner"}, False),
    ],
)
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        assert Params(**params).part == params.get("part", "encoder")
    else:
        with pytest.raises(ValidationError):
            Params(**params)


def test_inputs_and_outputs_are_described_with_two_shapes_where_a_length_is_open(traced: Path) -> None:
    described = {part: json.loads((traced / part / "inputs.json").read_text()) for part in PARTS}
    assert described["encoder"] == {
        "inputs": [{"name": "audio_signal", "dtype": "float32", "shape": [1, 128, 231], "shape2": [1, 128, 421]}],
        "outputs": ["encoder_output"],
    }
    predictor, joint = described["predictor"], described["joint"]
    assert [(each["name"], each["dtype"], each["shape"]) for each in predictor["inputs"]] == [
        ("y", "int64", [1, 1]),
        ("h", "float32", [2, 1, 96]),
        ("c", "float32", [2, 1, 96]),
    ]
    assert predictor["outputs"] == ["g", "h_out", "c_out"]
    assert [each["name"] for each in joint["inputs"]] == ["encoder_output", "predictor_output"]
    assert all(each["shape"] == each["shape2"] for each in predictor["inputs"] + joint["inputs"])


@pytest.mark.filterwarnings("ignore:.torch.jit.load. is deprecated:DeprecationWarning")
def test_the_trace_is_nemos_encoder_on_speech(traced: Path, restored_model: Any, speech: Any) -> None:
    features, lengths = speech[0][2:, :, :997], torch.tensor([997])
    want, _ = restored_model.encoder(audio_signal=features, length=lengths)
    got = torch.jit.load(traced / "encoder" / "encoder.pt")(features)[0]
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= 1e-5


def test_a_trace_is_the_same_bytes_again_and_names_no_path(traced: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    again = tmp_path / "again, in a folder with another name"
    again.mkdir()
    trace_in_a_process_of_its_own(tiny_checkpoint, again, PYTHONHASHSEED="4711", OMP_NUM_THREADS="2", TMPDIR=str(again))
    for part in PARTS:
        for name in (f"{part}.pt", "inputs.json"):
            assert (again / part / name).read_bytes() == (traced / part / name).read_bytes()
        with zipfile.ZipFile(traced / part / f"{part}.pt") as archive:
            for member in archive.namelist():
                assert b"/artifacts/" not in archive.read(member)


def test_ncnn_takes_speech_of_any_length_up_to_the_end_of_the_table(
    traced: Path, restored_model: Any, speech: Any, tmp_path: Path
) -> None:
    metrics = convert_pnnx.run(tmp_path, convert_pnnx.Params(), traced=traced / "encoder")
    assert metrics["encoder_output_max_abs_diff"] < 1e-4
    encoder = NcnnEncoder(tmp_path, threads=1)
    assert encoder.max_frames == 125
    features = torch.cat([speech[0][2], speech[0][2]], dim=1)[None]
    for frames in (1, 8, 9, 101, 231, 999, 1000):
        want, _ = restored_model.encoder(audio_signal=features[:, :, :frames], length=torch.tensor([frames]))
        got = encoder.frames(features.numpy(), np.array([frames]))
        assert got.shape == (-(-frames // 8), 96)
        assert float(np.abs(got - want[0].T.numpy()).max()) <= 1e-4
    with pytest.raises(StepError, match="126 encoder frames, and the table of positions allows 125"):
        encoder.frames(features.numpy(), np.array([1001]))


def test_lengths_of_as_many_encoder_frames_leave_no_length_open(traced: Path, tmp_path: Path) -> None:
    """pnnx writes the one number that it has seen, and ncnn gives so many frames for all lengths, without an error."""
    described = Input(name="audio_signal", dtype="float32", shape=[1, 128, 231], shape2=[1, 128, 232])
    convert(traced / "encoder" / "encoder.pt", "encoder", tmp_path, [described], fp16=False)
    features = np.zeros((128, 400), np.float32)
    (result,) = run_isolated(tmp_path / "encoder.ncnn.param", tmp_path / "encoder.ncnn.bin", [{"in0": features}])
    assert result["out0"].shape == (96, 29)
    with pytest.raises(StepError, match="crops 0 tables of relative positions, not one") as raised:
        NcnnEncoder(tmp_path, threads=1)
    assert raised.value.fix.startswith("give a FastConformer's encoder, converted with two lengths")


@pytest.mark.parametrize("name", ["checkpoint.nemo", "checkpoint.bin"])
def test_a_file_that_is_not_a_checkpoint_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"<html>")
    with pytest.raises(StepError, match=rf"{name}: not a \.nemo checkpoint"):
        trace_nemo.run(tmp_path, Params(), checkpoint=tmp_path / name)
