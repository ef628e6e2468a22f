from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.icefall.checkpoint import load
from artifacts.speech.corpus import read_corpus
from artifacts.speech.sherpa_streaming import features
from artifacts.steps import trace_icefall
from artifacts.steps.trace_icefall import Params

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "embedded" / "lstm-transducer" / "checkpoint"
PARTS = ("encoder", "predictor", "joint")


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Each part's folder and metrics."""
    made = {}
    for part in PARTS:
        out = tmp_path_factory.mktemp(part)
        made[part] = (out, trace_icefall.run(out, Params.model_validate({"part": part}), checkpoint=CHECKPOINT))
    return made


def _run(path: Path, *inputs: torch.Tensor) -> Any:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.jit.load(str(path))(*inputs)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("params", "is_good"),
    [
        ({}, True),
        ({"part": "predictor"}, True),
        ({"part": "joint"}, True),
        ({"part": "decoder"}, False),
        ({"part": "joiner"}, False),
        ({"part": None}, False),
        ({"frames": 39}, False),
        ({"max_seconds": 60.0}, False),
    ],
)
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        assert Params.model_validate(params).part == params.get("part", "encoder")
    else:
        with pytest.raises(ValidationError):
            Params.model_validate(params)


@pytest.mark.parametrize("part", PARTS)
def test_there_are_two_files_and_the_difference_was_measured(part: str, traced: dict[str, Any]) -> None:
    out, metrics = traced[part]
    assert {path.name for path in out.iterdir()} == {f"{part}.pt", "inputs.json"}
    assert metrics["max_abs_diff"] <= 1e-5
    assert metrics["bytes"] == (out / f"{part}.pt").stat().st_size


def test_the_interface_is_what_pnnx_needs(traced: dict[str, Any]) -> None:
    encoder, predictor, joint = (json.loads((traced[part][0] / "inputs.json").read_text()) for part in PARTS)
    assert [(each["name"], each["dtype"], each["shape"], each["shape2"]) for each in encoder["inputs"]] == [
        ("features", "float32", [1, 39, 80], [1, 9, 80]),
        ("length", "int64", [1], [1]),
        ("h", "float32", [3, 1, 128], [3, 1, 128]),
        ("c", "float32", [3, 1, 256], [3, 1, 256]),
    ]
    assert encoder["outputs"] == ["encoder_output", "encoded_length", "h_out", "c_out"]  # sherpa takes 0, 2 and 3
    assert [(each["name"], each["dtype"], each["shape"]) for each in predictor["inputs"]] == [("y", "int64", [1, 2])]
    assert [(each["name"], each["shape"]) for each in joint["inputs"]] == [
        ("encoder_output", [1, 128]),
        ("predictor_output", [1, 128]),
    ]


@pytest.mark.parametrize("frames", [9, 10, 40, 57, 130])
def test_speech_of_any_length_goes_through_as_through_the_model(
    frames: int, traced: dict[str, Any], evaluation: Path
) -> None:
    model = load(CHECKPOINT)
    corpus = read_corpus(evaluation, ("noisy_1db",))
    frames_of_speech = torch.from_numpy(features(corpus.waveform(corpus.utterances[0]))[:frames])[None]
    with torch.no_grad():
        want, h, c = model.encoder(frames_of_speech, *model.zero_states())
    out, length, h_out, c_out = _run(
        traced["encoder"][0] / "encoder.pt", frames_of_speech, torch.tensor([frames]), *model.zero_states()
    )
    assert length.tolist() == [want.shape[1]] == [((frames - 3) // 2 - 1) // 2]
    for have, wanted in ((out, want), (h_out, h), (c_out, c)):
        torch.testing.assert_close(have, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("part", PARTS)
def test_no_path_and_no_source_position_is_left_in_the_file(part: str, traced: dict[str, Any]) -> None:
    path = traced[part][0] / f"{part}.pt"
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".debug_pkl")]
        content = b"".join(archive.read(name) for name in archive.namelist())
    for word in (str(ROOT), str(path.parent), "site-packages", ".venv"):
        assert word.encode() not in content, word


def test_the_bytes_are_the_same_wherever_and_however_often(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from artifacts.steps.trace_icefall import Params, run\n"
        "run(Path(sys.argv[1]), Params(), checkpoint=Path(sys.argv[2]))"
    )
    files = []
    for number in ("1", "2"):
        out = tmp_path / number / "out"
        out.mkdir(parents=True)
        environment = {**os.environ, "PYTHONHASHSEED": number, "OMP_NUM_THREADS": number, "TMPDIR": str(out.parent)}
        command = [sys.executable, "-W", "ignore", "-c", script, str(out), str(CHECKPOINT)]
        subprocess.run(command, cwd=out.parent, env=environment, check=True)
        files.append((out / "encoder.pt").read_bytes() + (out / "inputs.json").read_bytes())
    assert files[0] == files[1]


def test_a_checkpoint_that_is_cut_short_is_an_error_of_two_lines(tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes((CHECKPOINT / "pretrained.pt").read_bytes()[:1000])
    with pytest.raises(StepError, match=r"^cut\.pt: "):
        trace_icefall.run(tmp_path, Params(), checkpoint=tmp_path / "cut.pt")
