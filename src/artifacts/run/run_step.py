"""Run one step in its own process, watch it, and return its result.

However the step's process ends, this process goes on. It does not trust the messages and files of the step's process,
because a step reads files of strangers.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import signal
import site
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.errors import StepError, StoreError
from artifacts.files.stamps import Stamps, digest_stamps
from artifacts.plan.step_files import own_steps_folder
from artifacts.run.memory import kernel_kills
from artifacts.run.seal import UnsealableError, seal

if TYPE_CHECKING:
    from artifacts.sources.download import ProgressCallback

GIB = 1 << 30
MAX_RESULT_BYTES = 1 << 24
MAX_PROGRESS_CHARACTERS = 10_000
# Bound on a number that a step reports: Python's integers have none, and these are divided and shown.
MOST_OF_A_NUMBER = 1 << 63

# Environment variables that a step gets. The number of threads decides no bytes; tests check that.
PASSED_ON = ("PATH", "OMP_NUM_THREADS")
FIXED = {
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "ORT_DISABLE_TELEMETRY": "1",  # else ONNX Runtime leaves a file in the temporary folder
    "PYTHONPATH": str(Path(__file__).parents[2]),  # the child runs the code whose digest is in the identity
}


@dataclass(frozen=True)
class Limits:
    """Bounds on a step's time, in minutes: from its start, and since it last reported progress."""

    minutes: float
    silent_minutes: float


@dataclass(frozen=True)
class StepResult:
    """Result of a step.

    `files` are {name: (bytes, sha256)}. `compiled` are the modules that the step's process compiled, as
    {module: sha256}. `unconfined` says which of `files` and `network` the kernel could not keep from the step.
    """

    files: dict[str, tuple[int, str]]
    metrics: dict[str, float | int | str]
    seconds: float
    peak_bytes: int
    processor: str
    compiled: dict[str, str]
    unconfined: tuple[str, ...] = ()


class StepCrashError(Exception):
    """End of a step by a bug, not by a user's mistake. The text is the end of the log, or the fault of the output."""


def run_step(
    staging: Path,
    log: Path,
    step: str,
    params: dict[str, Any],
    inputs: dict[str, Path],
    tools: dict[str, str],
    progress: ProgressCallback,
    limits: Limits,
    trusted: Collection[str] = (),
    stamps: Mapping[str, Stamps] = {},
    readable: Collection[Path] = (),
) -> StepResult:
    """Run a step in `staging`. Its files are then in `staging/files`: hashed, read-only and on the disk.

    `trusted` names the inputs whose source says `trust: true`. `stamps` are those of the inputs, which the step's
    process compares. The step may also read what is `readable`. The output of the step and its libraries goes to `log`.
    Raises the step's own `ArtifactsError`; `StepError` if it was killed or reached a limit; `StepCrashError` for any
    other end.
    """
    for folder in ("files", "work", "tmp"):
        (staging / folder).mkdir()
    read_end, write_end = os.pipe()
    own = own_steps_folder()
    spec = {
        "step": step,
        "params": params,
        "inputs": {name: str(path.absolute()) for name, path in inputs.items()},
        "tools": tools,
        "trusted": list(trusted),
        "stamps": {name: digest_stamps(of_input) for name, of_input in stamps.items()},
        "own_steps": str(own) if own else "",
        "readable": [str(path.absolute()) for path in (*readable, *([own] if own else []))],
        "parent": os.getpid(),
        "progress": write_end,
    }
    (staging / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    temporary = str(staging.absolute() / "tmp")
    # A step has no home folder, but can import packages that pip installed for this user alone.
    environment |= FIXED | {"TMPDIR": temporary, "HOME": temporary, "PYTHONUSERBASE": site.getuserbase()}
    kills_before = kernel_kills()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "artifacts.run.child", str(staging.absolute())],
            cwd=staging / "work",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            pass_fds=(write_end,),
            start_new_session=True,
        )
    os.close(write_end)
    last = _LastProgress(progress)
    # A daemon thread: a grandchild that keeps the pipe open must not keep this process alive.
    reader = threading.Thread(target=last.read, args=(read_end,), daemon=True)
    watchdog = _Watchdog(process.pid, limits, last)
    try:  # if a thread cannot start, the step must end too
        reader.start()
        watchdog.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    finally:
        # The process is not reaped yet, so its number is still its own, and no other process is killed.
        watchdog.stop()
        _kill_session(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    reader.join(timeout=1)
    if watchdog.reached:
        raise StepError(f"{watchdog.reached}{last.doing}", f"{watchdog.fix}, or read '{log}'")
    by_kernel = kernel_kills() > kills_before
    result = _result(process.returncode, usage.ru_maxrss * 1024, staging, log, last, by_kernel)
    try:
        return _checked(result, seal(staging / "files"))
    except UnsealableError as error:
        raise StepCrashError(str(error)) from None


class _LastProgress:
    """Last progress message of a step, and its time. `read` passes each message on to the callback."""

    def __init__(self, progress: ProgressCallback) -> None:
        self.progress = progress
        self.message = ""
        self.at = time.monotonic()

    @property
    def doing(self) -> str:
        """The step's last message, as the end of a sentence."""
        return f" while {self.message}" if self.message else ""

    def read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as lines:
            while line := lines.readline(MAX_PROGRESS_CHARACTERS):
                try:
                    record = json.loads(line)
                    message, counts = str(record["message"])[:300], [record.get("done"), record.get("total")]
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    continue  # a library, or a hostile input's code, wrote to the descriptor
                self.message, self.at = message, time.monotonic()
                done, total = (
                    count if isinstance(count, int) and 0 <= count < MOST_OF_A_NUMBER else None for count in counts
                )
                self.progress(message, done, total)


class _Watchdog:
    """Kill a step that reaches a limit of its time. `reached` then says which limit, and `fix` how to raise it."""

    def __init__(self, leader: int, limits: Limits, last: _LastProgress) -> None:
        self.reached = self.fix = ""
        self._leader, self._limits, self._last = leader, limits, last
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin the watch. Raises RuntimeError if no thread can start."""
        self._thread.start()

    def _watch(self) -> None:
        bound, silent = self._limits.minutes, self._limits.silent_minutes
        while True:
            now = time.monotonic()
            left, left_silent = self._started + 60 * bound - now, self._last.at + 60 * silent - now
            if left <= 0:
                self.reached = f"stopped after {bound:g} minutes, its limit,"
                self.fix = "raise resources.minutes of this target"
            elif left_silent <= 0:
                self.reached = f"stopped after {silent:g} minutes without progress, its limit,"
                self.fix = "raise resources.silent_minutes of this target"
            if self.reached:
                _kill_session(self._leader)
                return
            if self._ended.wait(min(left, left_silent, threading.TIMEOUT_MAX)):
                return

    def stop(self) -> None:
        """End the watch; nothing is killed afterwards."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()


def _result(code: int, peak_bytes: int, staging: Path, log: Path, last: _LastProgress, by_kernel: bool) -> Any:
    """Return the content of result.json. Raises StepError if a signal ended the step, or the error in result.json."""
    if code < 0:
        where = f"at {peak_bytes / GIB:.1f} GiB{last.doing}"
        if code == -signal.SIGKILL:
            killer = "killed by the kernel, which ran out of memory," if by_kernel else "killed (SIGKILL)"
            raise StepError(f"{killer} {where}", "raise resources.memory_gib or run fewer jobs at once (-n 1)")
        name = {one.value: one.name for one in signal.Signals}.get(-code, f"signal {-code}")
        raise StepError(f"ended by {name} {where}", f"read '{log}', then run again")
    try:
        result = json.loads(_read_regular(staging / "result.json"))
        if "error" in result:
            kind = StoreError if result["error"]["kind"] == "StoreError" else StepError
            raise kind(str(result["error"]["fact"]), str(result["error"]["fix"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise StepCrashError(_end_of(log)) from None
    return result


def _checked(result: Any, files: dict[str, tuple[int, str]]) -> StepResult:
    """Return a step's answer with the type of each value checked. Raises StepCrashError for a malformed answer."""
    try:
        metrics = {_text(name): value for name, value in result["metrics"].items()}
        for name, value in metrics.items():
            if not isinstance(value, (int, float, str)) or (isinstance(value, float) and not math.isfinite(value)):
                raise StepCrashError(f"metric '{name}': must be a finite number or a text, got {value!r}")
            if isinstance(value, str):
                _text(value)
            elif isinstance(value, int):
                _within(abs(value))
        compiled = {str(name): str(digest) for name, digest in result["compiled"].items()}
        unconfined = tuple(what for what in ("files", "network") if not result["confined"][what])
        took = _within(float(result["seconds"])), int(_within(result["peak_bytes"])), _text(result["processor"])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise StepCrashError(f"the step's answer is malformed: {type(error).__name__}: {error!s:.200}") from None
    return StepResult(files, metrics, *took, compiled, unconfined)


def _within(number: float) -> float:
    if not 0 <= number < MOST_OF_A_NUMBER:
        raise ValueError("a number is beyond its bounds")
    return number


def _text(value: Any) -> str:
    text = str(value)
    text.encode()  # raises for half a surrogate pair, which no record can contain
    return text


def _read_regular(path: Path) -> bytes:
    """Return the bytes of a file that a step left. Raises OSError for a link, a pipe, or a file beyond the bound."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode) or os.fstat(handle).st_size > MAX_RESULT_BYTES:
            raise OSError(errno.EINVAL, "not a small regular file", str(path))
        return file.read(MAX_RESULT_BYTES)


def _end_of(log: Path) -> str:
    """Return the last 8,000 bytes of a log, as text."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8000))
        return file.read().decode("utf-8", errors="replace")


def _kill_session(leader: int) -> None:
    """Kill all processes of a step, also the step itself if this run ends early."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
