"""Two builds of the embedded recipe in two folders, under other circumstances: every artifact has the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
MEASURED_AGAIN = ("size_int8",)
"""Measuring takes most of the time, and what is measured is compared anyway. Words and drift are measured twice, to the
same bytes, in `tests/steps/`."""


def _manifests(folder: Path) -> dict[str, dict[str, object]]:
    suffix = ".manifest.json"
    return {path.name.removesuffix(suffix): json.loads(path.read_bytes()) for path in folder.glob(f".state/*{suffix}")}


def test_every_artifact_has_the_same_bytes_in_another_folder_with_other_seeds_and_threads(
    whole_recipe: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "quite another folder"
    for folder in ("recipes", "embedded", "experiments"):
        shutil.copytree(ROOT / folder, elsewhere / folder, ignore=shutil.ignore_patterns("making"))
    for name in ("dodo.py", "pyproject.toml", "pipeline.yaml", "pipeline.lock.yaml"):
        shutil.copyfile(ROOT / name, elsewhere / name)
    environment = os.environ | {"PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    here = _manifests(whole_recipe)
    measured = ("wer_", "drift_", "size_")
    again = [name for name in sorted(here) if not name.startswith(measured) or name in MEASURED_AGAIN]
    assert len(again) >= 25
    command = [sys.executable, "-m", "doit", "-n", "2", *(f"{whole_recipe.name}:{name}" for name in again)]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    there = _manifests(elsewhere / "cache" / whole_recipe.name)
    assert there == {name: here[name] for name in again}
