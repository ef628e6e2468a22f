"""Run one step on files, without a recipe and without the store."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from artifacts.errors import StepError
from artifacts.plan.plan import DEFAULT_MINUTES, DEFAULT_SILENT_MINUTES
from artifacts.run.run_step import Limits, StepResult, run_step
from artifacts.sources.download import ProgressCallback


def run_one_step(
    step: str, params: dict[str, Any], inputs: dict[str, Path], out: Path, progress: ProgressCallback
) -> StepResult:
    """Run a step in its sandbox, and move its files to the folder `out`, which is new or empty.

    An input that is one file may read what is beside it: a model's external data. `out` stays as it is unless the step
    succeeds. Versions of tools are not compared with their pins. Raises StepError for an input that is missing and for
    an `out` that has files, and what `run_step` raises.
    """
    check_paths(inputs, out)
    made = out.resolve()
    made.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=made.parent, prefix=f".{made.name}."))
    try:
        log = staging / "log"
        folders = [path.resolve().parent for path in inputs.values() if path.is_file()]
        beside = [path for folder in folders for path in folder.iterdir() if path.is_file()]
        limits = Limits(DEFAULT_MINUTES, DEFAULT_SILENT_MINUTES)
        result = run_step(staging, log, step, params, inputs, {}, progress, limits, readable=beside)
        _make_writable(staging / "files")
        if made.exists():
            made.rmdir()
        (staging / "files").rename(made)
        return result
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_paths(inputs: dict[str, Path], out: Path) -> None:
    """Raise StepError for an input that is missing, and for an `out` that cannot be the step's folder."""
    for name, path in inputs.items():
        if not path.exists():
            raise StepError(f"--{name.replace('_', '-')}: no file or folder at '{path}'", "correct the path")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StepError(f"--out: '{out}' is not an empty folder", "name a new folder, or empty this one")
    if out.resolve().is_mount():
        raise StepError(f"--out: '{out}' is the root of a disk", "name a folder in it")


def _make_writable(folder: Path) -> None:
    """Give a person's files their usual modes: those of the store are read-only."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)
