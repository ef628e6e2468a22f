"""What the steps make of the embedded checkpoint, and the checkpoint itself as NeMo runs it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from artifacts.speech.corpus import read_corpus
from nemo_models import nemo_around_the_kits_modules

SETTINGS = {"first": ("0", "1"), "second, with a longer name": ("4711", "2")}


@dataclass(frozen=True)
class Exports:
    """The artifacts of `run_exports.py`: `folder / target`, and once more, made elsewhere, `again / target`."""

    folder: Path
    again: Path
    metrics: dict[str, Any]
    stderr: str


@pytest.fixture(scope="session")
def exports(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """Everything exported twice, side by side: other folders, thread counts, PYTHONHASHSEED and current folder.

    Once for all workers: their temporary folders lie in one.
    """
    mine = tmp_path_factory.getbasetemp()
    folder = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "exports"
    folder.mkdir(exist_ok=True)
    done = folder / "done.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            done.write_text(json.dumps(_export_twice(tiny_checkpoint, folder)))
    metrics, stderr = json.loads(done.read_text())
    return Exports(*(folder / name / "out" for name in SETTINGS), metrics, stderr)


def _export_twice(checkpoint: Path, folder: Path) -> tuple[dict[str, Any], str]:
    runs = []
    for name, (seed, threads) in SETTINGS.items():
        out = folder / name / "out"
        shutil.rmtree(out.parent, ignore_errors=True)  # of a worker that failed
        out.mkdir(parents=True)
        command = [sys.executable, "-W", "error", Path(__file__).parent / "run_exports.py", checkpoint, out]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        runs.append(
            subprocess.Popen(
                command, cwd=out.parent, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
    said = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said[0][1] + said[1][1]
    return json.loads(said[0][0]), said[0][1] + said[1][1]


@pytest.fixture(scope="session")
def restored_model(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """NeMo's model of the embedded checkpoint with the modules that the kit restores. Tests leave it as it is."""
    return nemo_around_the_kits_modules(tiny_checkpoint, tmp_path_factory.mktemp("unpacked"))


@pytest.fixture(scope="session")
def speech(restored_model: Any, evaluation: Path) -> Any:
    """Three utterances of unequal length as NeMo's features, in one batch: float32 [3, 128, T] and lengths [3]."""
    import torch

    corpus = read_corpus(evaluation, ("clean", "soft_endings", "long_20s"))
    waveforms = [torch.from_numpy(corpus.waveform(utterance)) for utterance in corpus.evenly_spread(1)]
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    return restored_model.preprocessor(input_signal=padded, length=lengths)
