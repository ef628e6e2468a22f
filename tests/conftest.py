"""The embedded checkpoint and what the real pipeline makes of it, for every test that asserts something on speech.

Artifacts are built once by `doit`, in this checkout's own cache: what an earlier run made is found again there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest_plugins = [
    "small_model",
    "small_project",
    "small_server",
    "small_downloads",  # of tests that run the engine on small steps
]
if find_spec("torch"):  # without it, the engine and the kit for ONNX can be tested: CONTRIBUTING.md
    pytest_plugins += ["lstm_networks", "ncnn_conversions"]  # of tests that run networks with ncnn

ROOT = Path(__file__).parent.parent
RECIPE = "tiny"
TARGETS = (
    "encoder_fp32",
    "predictor_fp32",
    "joint_fp32",
    "decoder_joint_fp32",
    "preprocessor",
    "tokens",
    "model_meta",
    "encoder_fp16",
    "encoder_fp16_fixed",
    "decoder_joint_fp16",
    "decoder_joint_fp16_fixed",
    "encoder_int8",
    "decoder_joint_int8_dynamic",
    "shard_fp32",
)

# Consumers, other processors, whole recipes on minutes of speech, and builds under attack: `make test-speech`.
SLOW_FOLDERS = ("consumers", "docs", "faults", "processors", "recipes")

Features = list[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]


def pytest_configure() -> None:
    """What every worker and every child inherits.

    A shell starts what it runs in the background with Control-C ignored, and `nohup` with the end of its terminal
    ignored. Where there are as many workers as cores, threads that wait for one another make torch many times slower.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of SLOW_FOLDERS. Elsewhere, a slow test has its mark beside it."""
    for item in items:
        if item.path.parent.name in SLOW_FOLDERS:
            item.add_marker(pytest.mark.slow)


def run_doit(*words: str) -> None:
    """Run `doit` on this project; what it prints is shown if it fails."""
    command = [sys.executable, "-m", "doit", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def built() -> Callable[[str], Path]:
    """Builds a target of the embedded recipe and returns its folder."""

    def build(target: str) -> Path:
        run_doit(f"{RECIPE}:{target}")
        return ROOT / "cache" / RECIPE / target

    return build


@pytest.fixture(scope="session")
def whole_recipe() -> Path:
    """The folder `cache/tiny` after everything in the embedded recipe was made."""
    run_doit("-n", "2")
    return ROOT / "cache" / RECIPE


def _target(name: str) -> Callable[..., Path]:
    @pytest.fixture(scope="session", name=name)
    def target(built: Callable[[str], Path]) -> Path:
        return built(name)

    return target


for _name in TARGETS:
    globals()[f"_{_name}"] = _target(_name)


@pytest.fixture(scope="session")
def dist_onnx_asr(built: Callable[[str], Path]) -> Path:
    """The folder that onnx-asr loads."""
    built("onnx-asr")
    return ROOT / "dist" / RECIPE / "onnx-asr"


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Path:
    """The embedded `.nemo` file."""
    return ROOT / "embedded" / "tiny" / "tiny.nemo"


@pytest.fixture(scope="session")
def evaluation() -> Path:
    """The evaluation corpus of the embedded checkpoint."""
    return ROOT / "embedded" / "tiny" / "evaluation"


@pytest.fixture(scope="session")
def calibration() -> Path:
    """The calibration corpus of the embedded checkpoint."""
    return ROOT / "embedded" / "tiny" / "calibration"


@pytest.fixture(scope="session")
def speech_features(preprocessor: Path, evaluation: Path) -> Features:
    """Features of real speech: float32 `[1, 128, T]` and their length `[1]`, one utterance of each slice up to 70 s.

    LONGEST_SPEECH_SECONDS lowers that for an emulator, where a second of speech takes ten.
    """
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.frontend import Preprocessor

    corpus = read_corpus(evaluation)
    model = Preprocessor(preprocessor / "preprocessor.onnx", threads=1)
    longest = float(os.environ.get("LONGEST_SPEECH_SECONDS", "70"))
    short = [utterance for utterance in corpus.evenly_spread(1) if utterance.duration <= longest]
    return [model.features(corpus.waveform(utterance)) for utterance in short]
