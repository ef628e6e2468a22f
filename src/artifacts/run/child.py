"""The process that a step runs in: `python -m artifacts.run.child <folder>`, with `spec.json` in that folder.

The spec says which step, its parameters, the inputs' paths, which of them are trusted, and the tools' pinned versions.
The process is confined first: it reads its inputs and writes the folder, and no more. `result.json` answers with
metrics, seconds, peak memory, the processor and what confined it, or with the error. Nothing else crosses, but for
progress: one JSON line for each log record of this package on the descriptor the spec names.
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
    """Run the step that `spec.json` describes and write `result.json`: done, or why not. 1 for a bug of ours."""
    spec = json.loads((folder / "spec.json").read_bytes())
    _die_with(spec["parent"])
    _be_killed_first()
    confinement = confine(map(Path, spec["inputs"].values()), folder)
    for name in spec["trusted"]:
        trust(Path(spec["inputs"][name]))
    _send_progress(spec["progress"])
    started = time.monotonic()
    try:
        _hold_to_stamps(spec["inputs"], spec["stamps"])
        result: dict[str, Any] = {"metrics": _run(spec, folder / "files"), "sources": compiled_sources}
        result |= {"seconds": time.monotonic() - started, "peak_bytes": peak_bytes(), "processor": processor()}
        _answer(folder, result | {"confined": asdict(confinement)})
    except ArtifactsError as error:
        _answer(folder, _refusal(error))
    except Exception as error:
        cause: ArtifactsError | None = _unfit_input(error, spec["inputs"]) or _undeclared_input(error, spec["inputs"])
        # What a step may not touch, or takes for what it is not, is not the disk's fault: inputs are read-only.
        if cause is None and not isinstance(
            error, (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
        ):
            cause = disk_error(error, folder.parent)
        if cause is None and isinstance(error, MemoryError):
            cause = StepError("memory ran out", "run fewer jobs at once (-n 1), or on a machine with more memory")
        for used in ("files", "work", "tmp"):
            shutil.rmtree(folder / used, ignore_errors=True)  # room for the answer, and for the traceback in the log
        if cause is not None:
            _answer(folder, _refusal(cause))
        traceback.print_exc()
        return 1 if cause is None else 0
    return 0


def _refusal(error: ArtifactsError) -> dict[str, Any]:
    return {"error": {"kind": type(error).__name__, "fact": error.fact, "fix": error.fix}}


def _unfit_input(error: Exception, inputs: dict[str, str]) -> StepError | None:
    """The error to raise for a file that a step looked for in an input in vain: the recipe gives it something else."""
    named = error.filename if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)) else None
    looked = Path(named) if isinstance(named, str) else Path()
    for name, place in inputs.items():
        if looked.is_relative_to(place) and Path(place).exists():
            wanted = looked.relative_to(place)
            what = f"holds no file '{wanted}'" if wanted.parts else "is a folder, and a file is expected"
            return StepError(f"input '{name}' {what}", "see in the recipe what this input is, and name what fits")
    return None


def _undeclared_input(error: Exception, inputs: dict[str, str]) -> StepError | None:
    """Return the error for a file beside an input's that the sandbox keeps from the step, as it is not an input."""
    if not isinstance(error, PermissionError) or not isinstance(error.filename, str):
        return None
    path = Path(error.filename).absolute()
    for name, place in inputs.items():
        if Path(place).is_file() and path.parent == Path(place).parent and str(path) not in inputs.values():
            fact = f"input '{name}' needs '{path.name}' beside it, which is not an input"
            return StepError(fact, "declare the source as a 'folder' that contains both files")
    return None


def _answer(folder: Path, result: dict[str, Any]) -> None:
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def peak_bytes() -> int:
    """The most memory this process has held: its own high-water mark, not the one inherited before exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# The sha256 of each of this package's modules that was compiled here.
compiled_sources: dict[str, str] = {}


class _FromSource(importlib.machinery.SourceFileLoader):
    """Runs the source text, which is what an identity has hashed.

    Bytecode on the disk is taken for current by the second of the source's time and by its size: of two quick edits, or
    behind a copy that keeps times, the old one would run.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        source = self.get_data(path)
        compiled_sources[fullname] = hashlib.sha256(source).hexdigest()
        return self.source_to_code(source, path)


class _OwnModules(importlib.abc.MetaPathFinder):
    """Finds this package's modules for `_FromSource`."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        spec = None
        if fullname.startswith("artifacts."):
            spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _FromSource(fullname, spec.loader.path)
        return spec


def _run(spec: dict[str, Any], out: Path) -> dict[str, Any]:
    _hold_to_pins(spec["tools"])
    sys.meta_path.insert(0, _OwnModules())
    step = importlib.import_module(f"artifacts.steps.{spec['step']}")
    params = step.Params.model_validate_json(json.dumps(spec["params"]))
    metrics: dict[str, Any] = step.run(out, params, **{name: Path(path) for name, path in spec["inputs"].items()}) or {}
    return metrics


def _hold_to_stamps(inputs: dict[str, str], stamps: dict[str, str]) -> None:
    """Raise StepError for an input that is not the one that was hashed: this process can open no other later."""
    for name, digest in stamps.items():
        try:
            found = digest_stamps(stamps_of(Path(inputs[name]), opened=False))
        except FileNotFoundError:
            found = ""
        if found != digest:
            raise StepError(f"input '{name}' changed before the step read it", "run again")


def _hold_to_pins(tools: dict[str, str]) -> None:
    for tool, pinned in tools.items():
        try:
            found = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            raise StepError(f"'{tool}' is not installed, pinned is {pinned}", f"pip install {tool}=={pinned}") from None
        if pinned not in (found, found.partition("+")[0]):  # 2.13.0 admits every 2.13.0+cpu
            fix = f"pip install {tool}=={pinned}, or change the pin in pipeline.yaml"
            raise StepError(f"'{tool}' is {found} here, pinned is {pinned}", fix)


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the one that started it is gone: nothing may go on building unseen."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that started this step is gone")


def _be_killed_first() -> None:
    """Ask the kernel to choose this process where memory runs out, and not the one that started it."""
    with contextlib.suppress(OSError):  # where /proc cannot be written, the kernel chooses by size alone
        Path("/proc/self/oom_score_adj").write_text("1000")


def _send_progress(descriptor: int) -> None:
    class Sender(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line: dict[str, Any] = {"message": record.getMessage()[:300]}
            for key in ("done", "total"):
                if (count := getattr(record, key, None)) is not None:
                    line[key] = int(count)
            # One write of a line this short is whole, whoever else writes; a reader that is gone is no error here.
            with contextlib.suppress(BrokenPipeError):
                os.write(descriptor, json.dumps(line).encode() + b"\n")

    logging.getLogger("artifacts").addHandler(Sender())
    logging.getLogger("artifacts").setLevel(logging.INFO)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
