"""Main program of a step's process: `python -m artifacts.run.child <folder>`, with `spec.json` in that folder.

The spec contains the step, its parameters, the tools' pinned versions, the inputs' paths and stamps, and which inputs
are trusted. The process confines itself first: then it can read the system, Python and its inputs, and write the
folder. Its answer, `result.json`, contains an error, or else metrics, seconds, peak memory, the processor, the
confinement and the compiled modules. Progress is one JSON line for each log record of this package, on the descriptor
that the spec names. Apart from this, the parent gets only the output files and the printed text.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import json
import logging
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from types import CodeType
from typing import Any

from artifacts.errors import ArtifactsError, StepError, disk_error
from artifacts.files.stamps import digest_stamps, stamps_of
from artifacts.runtime.processor import processor
from artifacts.sandbox.confine import confine
from artifacts.untrusted.trust import trust

PR_SET_PDEATHSIG = 1


def main(folder: Path) -> int:
    """Run the step of `spec.json` and write `result.json`. Return the exit code: 1 for a bug of ours."""
    spec = json.loads((folder / "spec.json").read_bytes())
    _die_with(spec["parent"])
    _be_killed_first()
    confinement = confine(map(Path, [*spec["inputs"].values(), *spec["readable"]]), folder)
    for name in spec["trusted"]:
        trust(Path(spec["inputs"][name]))
    _send_progress(spec["progress"])
    started = time.monotonic()
    try:
        _check_stamps(spec["inputs"], spec["stamps"])
        result: dict[str, Any] = {"metrics": _run(spec, folder / "files"), "compiled": compiled}
        result |= {"seconds": time.monotonic() - started, "peak_bytes": peak_bytes(), "processor": processor()}
        _answer(folder, result | {"confined": asdict(confinement)})
    except ArtifactsError as error:
        _answer(folder, _error_answer(error))
    except Exception as error:
        cause: ArtifactsError | None = _unfit_input(error, spec["inputs"]) or _undeclared_input(error, spec["inputs"])
        # These errors are faults of the step, not of the disk: for example, a write to a read-only input.
        if cause is None and not isinstance(
            error, (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
        ):
            cause = disk_error(error, folder.parent)
        if cause is None and isinstance(error, MemoryError):
            cause = StepError("memory ran out", "run fewer jobs at once (-n 1), or use a machine with more memory")
        for used in ("files", "work", "tmp"):
            shutil.rmtree(folder / used, ignore_errors=True)  # frees space for the answer and the log
        if cause is not None:
            _answer(folder, _error_answer(cause))
        traceback.print_exc()
        return 1 if cause is None else 0
    return 0


def _error_answer(error: ArtifactsError) -> dict[str, Any]:
    return {"error": {"kind": type(error).__name__, "fact": error.fact, "fix": error.fix}}


def _unfit_input(error: Exception, inputs: dict[str, str]) -> StepError | None:
    """Return the error for a file that a step expects in an input, but that is missing; None for any other error."""
    filename = error.filename if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)) else None
    expected = Path(filename) if isinstance(filename, str) else Path()
    for name, path in inputs.items():
        if expected.is_relative_to(path) and Path(path).exists():
            inside = expected.relative_to(path)
            what = f"contains no file '{inside}'" if inside.parts else "is a folder, and a file is expected"
            return StepError(f"input '{name}' {what}", f"check the input '{name}' of this target in the recipe")
    return None


def _undeclared_input(error: Exception, inputs: dict[str, str]) -> StepError | None:
    """Return the error for a file beside an input's file: it is not an input, so the sandbox keeps it from the step."""
    if not isinstance(error, PermissionError) or not isinstance(error.filename, str):
        return None
    beside = Path(error.filename).absolute()
    for name, path in inputs.items():
        if Path(path).is_file() and beside.parent == Path(path).parent and str(beside) not in inputs.values():
            fact = f"input '{name}' needs '{beside.name}' beside it, which is not an input"
            return StepError(fact, "declare the source as a 'folder' that contains both files")
    return None


def _answer(folder: Path, result: dict[str, Any]) -> None:
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def peak_bytes() -> int:
    """Return the peak memory of this process since it began (exec), without that of the process that forked it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# The sha256 of each module of this package that this process compiled.
compiled: dict[str, str] = {}


class _FromSource(importlib.machinery.SourceFileLoader):
    """Loader that compiles the source text, whose digest is in the identity, and ignores bytecode on the disk.

    Python compares bytecode with its source by size and by the second of its time. After two quick edits, or a copy
    that keeps times, old bytecode would run.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source = self.get_data(path)
        compiled[fullname] = hashlib.sha256(source).hexdigest()
        return self.source_to_code(source, path)


class _OwnModules(importlib.abc.MetaPathFinder):
    """Finder that loads the modules of this package with `_FromSource`."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        spec = None
        if fullname.startswith("artifacts."):
            spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _FromSource(fullname, spec.loader.path)
        return spec


def _run(spec: dict[str, Any], out: Path) -> dict[str, Any]:
    _check_tools(spec["tools"])
    sys.meta_path.insert(0, _OwnModules())
    if spec["own_steps"]:
        importlib.import_module("artifacts.steps").__path__.append(spec["own_steps"])
    step = importlib.import_module(f"artifacts.steps.{spec['step']}")
    params = step.Params.model_validate_json(json.dumps(spec["params"]))
    metrics: dict[str, Any] = step.run(out, params, **{name: Path(path) for name, path in spec["inputs"].items()}) or {}
    return metrics


def _check_stamps(inputs: dict[str, str], stamps: dict[str, str]) -> None:
    """Raise StepError for an input that is not the one that was hashed. The sandbox lets this process open no other."""
    for name, digest in stamps.items():
        try:
            now = digest_stamps(stamps_of(Path(inputs[name]), opened=False))
        except FileNotFoundError:
            now = ""
        if now != digest:
            raise StepError(f"input '{name}' changed before the step read it", "run again")


def _check_tools(tools: dict[str, str]) -> None:
    for tool, pinned in tools.items():
        try:
            version = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            fact = f"'{tool}' is not installed, and constraints.txt pins {pinned}"
            raise StepError(fact, f"pip install {tool}=={pinned}") from None
        if pinned not in (version, version.partition("+")[0]):  # the pin 2.13.0 allows 2.13.0+cpu
            fix = f"pip install {tool}=={pinned}, or change the pin in constraints.txt"
            raise StepError(f"'{tool}' has version {version}, and constraints.txt pins {pinned}", fix)


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends, so that no step outlives its run."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that started this step is gone")


def _be_killed_first() -> None:
    """Ask the kernel to kill this process before its parent when memory runs out."""
    with contextlib.suppress(OSError):  # if /proc cannot be written, the kernel chooses by size alone
        Path("/proc/self/oom_score_adj").write_text("1000")


def _send_progress(descriptor: int) -> None:
    class Sender(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line: dict[str, Any] = {"message": record.getMessage()[:300]}
            for key in ("done", "total"):
                if (count := getattr(record, key, None)) is not None:
                    line[key] = int(count)
            # One write of a line this short is atomic. A pipe that the parent has closed is not an error.
            with contextlib.suppress(BrokenPipeError):
                os.write(descriptor, json.dumps(line).encode() + b"\n")

    logging.getLogger("artifacts").addHandler(Sender())
    logging.getLogger("artifacts").setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
