"""Broken models, corpora, tokens, statistics and networks: every step answers each in two lines, and goes on living."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter

import pytest

from conftest import ROOT, run_doit
from faults.fuzz_models import cases
from faults.lengths import LONG, tell
from faults.model_steps import KINDS, USES
from faults.sound_inputs import TARGETS

COUNT = 1000 if LONG else 60


@pytest.fixture(scope="session")
def sound_artifacts() -> None:
    """What is broken, sound, in this checkout's cache."""
    run_doit(*(f"{recipe}:{target}" for recipe, targets in TARGETS.items() for target in targets))


@pytest.mark.usefixtures("sound_artifacts")
def test_every_step_answers_broken_inputs_in_two_lines() -> None:
    # A process of its own: its forks shall have no thread of another test behind them.
    command = [sys.executable, "-m", "faults.fuzz_models", str(COUNT), os.environ.get("FAULTS_SEED", "1")]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-10_000:]}\n{done.stderr[-3000:]}"
    counts = ast.literal_eval(done.stdout.splitlines()[-1])
    tell("models", counts)
    assert counts["refused"] > COUNT // 2


def test_each_way_to_break_a_file_comes_once_before_any_comes_again() -> None:
    ways = {(kind, damage) for use in USES for kind in use.broken.values() for damage in KINDS[kind]}
    drawn = cases(len(ways) + 10, seed=5)
    counts = Counter((case.kind, case.damage) for case in drawn)
    assert set(counts) == ways
    assert max(counts.values()) == 2
    assert drawn == cases(len(ways) + 10, seed=5)
    assert len({case.use.step for case in drawn}) == len({use.step for use in USES})
