"""Runs one step in a process of its own, watches it, and says how it ended. Nothing here can hang on a dead process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.errors import ArtifactsError, StepError, StoreError

GIB = 1 << 30

# Called with a step's message and, where it counts, how many are done of how many.
Progress = Callable[[str, int | None, int | None], None]

# What a step may see of the environment. How many threads there are decides no bytes, and tests hold to that.
PASSED_ON = ("PATH", "HOME", "OMP_NUM_THREADS")
FIXED = {
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "ORT_DISABLE_TELEMETRY": "1",  # else it leaves a file of its own in the folder for temporary ones
    "PYTHONPATH": str(Path(__file__).parents[1]),  # the child runs the very code whose digest is in the identity
}


@dataclass(frozen=True)
class StepResult:
    """What a step that went well has to say: files as {name: (bytes, sha256)}, metrics, and what it took."""

    files: dict[str, tuple[int, str]]
    metrics: dict[str, float | int | str]
    seconds: float
    peak_bytes: int
    processor: str


class StepCrashError(Exception):
    """A step ended with an exception that is a bug of ours, not a mistake of its user. Carries the traceback."""


def run_step(
    staging: Path,
    log: Path,
    step: str,
    params: dict[str, Any],
    inputs: dict[str, Path],
    tools: dict[str, str],
    progress: Progress,
) -> StepResult:
    """Run a step in `staging`; its files are then in `staging/files`, hashed, read-only and on the disk.

    What the step and its libraries print goes to `log`. Raises the step's own `ArtifactsError`; `StepError` when it was
    killed; `StepCrashError` for anything unforeseen.
    """
    for folder in ("files", "work", "tmp"):
        (staging / folder).mkdir()
    read_end, write_end = os.pipe()
    spec = {
        "step": step,
        "params": params,
        "inputs": {name: str(path.absolute()) for name, path in inputs.items()},
        "tools": tools,
        "parent": os.getpid(),
        "progress": write_end,
    }
    (staging / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= FIXED | {"TMPDIR": str(staging.absolute() / "tmp")}
    kills_before = _kernel_kills()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "artifacts.child", str(staging.absolute())],
            cwd=staging / "work",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            pass_fds=(write_end,),
            start_new_session=True,
        )
    os.close(write_end)
    last = _Last(progress)
    # A daemon: a grandchild that keeps the pipe open must not keep us.
    reader = threading.Thread(target=last.read, args=(read_end,), daemon=True)
    reader.start()
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    finally:
        # It is not reaped yet, so its number is still its own: nothing of another's is killed.
        _kill_session(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    reader.join(timeout=1)
    return _judge(process.returncode, usage.ru_maxrss * 1024, staging, log, last, _kernel_kills() > kills_before)


class _Last:
    """Passes progress on, and remembers what was said last."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.message = ""

    def read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, encoding="utf-8") as lines:
            for line in lines:
                said = json.loads(line)
                self.message = said["message"]
                self.progress(said["message"], said.get("done"), said.get("total"))


def _judge(code: int, peak_bytes: int, staging: Path, log: Path, last: _Last, by_kernel: bool) -> StepResult:
    doing = f" while {last.message}" if last.message else ""
    if code < 0:
        held = f"at {peak_bytes / GIB:.1f} GiB{doing}"
        if code == -signal.SIGKILL:
            killer = "killed by the kernel, which ran out of memory," if by_kernel else "killed (SIGKILL)"
            raise StepError(f"{killer} {held}", "raise resources.memory_gib or run fewer jobs at once (-n 1)")
        name = {known.value: known.name for known in signal.Signals}.get(-code, f"signal {-code}")
        raise StepError(f"ended by {name} {held}", f"read '{log}', then run again")
    try:
        result = json.loads((staging / "result.json").read_bytes())
    except (FileNotFoundError, ValueError):
        raise StepCrashError(log.read_text(encoding="utf-8", errors="replace")[-8000:]) from None
    if "error" in result:
        kinds: dict[str, type[ArtifactsError]] = {"StoreError": StoreError}
        error = result["error"]
        raise kinds.get(error["kind"], StepError)(error["fact"], error["fix"])
    files = {name: (size, digest) for name, (size, digest) in result["files"].items()}
    return StepResult(files, result["metrics"], result["seconds"], result["peak_bytes"], result["processor"])


def _kill_session(leader: int) -> None:
    """End whatever the step left running, or the step itself if we are leaving early."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _kernel_kills() -> int:
    """How often the kernel has killed a process for want of memory, on this machine or in our control group."""
    kills = 0
    for path in (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")):
        if path.exists():
            for line in path.read_text().splitlines():
                if line.startswith("oom_kill "):
                    kills += int(line.split()[1])
    return kills
