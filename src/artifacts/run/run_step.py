"""Runs one step in a process of its own, watches it, and says how it ended. Nothing here can hang on a dead process.

What the process says and leaves is not trusted: a step reads what strangers made.
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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.errors import StepError, StoreError
from artifacts.files.stamps import Stamps, digest_stamps
from artifacts.run.memory import kernel_kills
from artifacts.run.seal import UnsealableError, seal

GIB = 1 << 30
MAX_RESULT_BYTES = 1 << 24
MAX_PROGRESS_CHARACTERS = 10_000
# Python's numbers have no end; those that are shown, and divided, have.
MOST_OF_A_NUMBER = 1 << 63

# Called with a step's message and, where it counts, how many are done of how many.
Progress = Callable[[str, int | None, int | None], None]

# What a step may see of the environment. How many threads there are decides no bytes, and tests hold to that.
PASSED_ON = ("PATH", "OMP_NUM_THREADS")
FIXED = {
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "ORT_DISABLE_TELEMETRY": "1",  # else it leaves a file of its own in the folder for temporary ones
    "PYTHONPATH": str(Path(__file__).parents[2]),  # the child runs the very code whose digest is in the identity
}


@dataclass(frozen=True)
class Limits:
    """Bounds on a step's time, in minutes: from its start, and since it last reported progress."""

    minutes: float
    silent_minutes: float


@dataclass(frozen=True)
class StepResult:
    """Result of a step: files as {name: (bytes, sha256)}, metrics, what it took, the sha256 of the sources that it was
    compiled from as {module: sha256}, and which of `files` and `network` the kernel could not keep from it."""

    files: dict[str, tuple[int, str]]
    metrics: dict[str, float | int | str]
    seconds: float
    peak_bytes: int
    processor: str
    sources: dict[str, str]
    unconfined: tuple[str, ...] = ()


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
    limits: Limits,
    trusted: Collection[str] = (),
    stamps: Mapping[str, Stamps] = {},
) -> StepResult:
    """Run a step in `staging`; its files are then in `staging/files`, hashed, read-only and on the disk.

    `trusted` names the inputs whose source says `trust: true`; `stamps` are those that its process must find. What
    the step and its libraries print goes to `log`. Raises the step's own `ArtifactsError`; `StepError` when it was
    killed or reached a limit; `StepCrashError` for anything unforeseen.
    """
    for folder in ("files", "work", "tmp"):
        (staging / folder).mkdir()
    read_end, write_end = os.pipe()
    spec = {
        "step": step,
        "params": params,
        "inputs": {name: str(path.absolute()) for name, path in inputs.items()},
        "tools": tools,
        "trusted": list(trusted),
        "stamps": {name: digest_stamps(of_input) for name, of_input in stamps.items()},
        "parent": os.getpid(),
        "progress": write_end,
    }
    (staging / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    own = str(staging.absolute() / "tmp")
    # A step has no home; what pip installed for this user alone is found all the same.
    environment |= FIXED | {"TMPDIR": own, "HOME": own, "PYTHONUSERBASE": site.getuserbase()}
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
    last = _Last(progress)
    # A daemon: a grandchild that keeps the pipe open must not keep us.
    reader = threading.Thread(target=last.read, args=(read_end,), daemon=True)
    watchdog = _Watchdog(process.pid, limits, last)
    try:  # a thread may not start; the step must end then too
        reader.start()
        watchdog.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    finally:
        # It is not reaped yet, so its number is still its own: nothing of another's is killed.
        watchdog.stop()
        _kill_session(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    reader.join(timeout=1)
    if watchdog.reached:
        raise StepError(f"{watchdog.reached}{last.doing}", f"{watchdog.fix}, or see in '{log}' what it does")
    by_kernel = kernel_kills() > kills_before
    result = _judge(process.returncode, usage.ru_maxrss * 1024, staging, log, last, by_kernel)
    try:
        return _accepted(result, seal(staging / "files"))
    except UnsealableError as error:
        raise StepCrashError(str(error)) from None


class _Last:
    """Passes progress on, and remembers what was said last, and when."""

    def __init__(self, progress: Progress) -> None:
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
                    said = json.loads(line)
                    message, counts = str(said["message"])[:300], [said.get("done"), said.get("total")]
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    continue  # not a line of ours: a library wrote to the descriptor, or a hostile input's code did
                self.message, self.at = message, time.monotonic()
                done, total = (
                    count if isinstance(count, int) and 0 <= count < MOST_OF_A_NUMBER else None for count in counts
                )
                self.progress(message, done, total)


class _Watchdog:
    """Kills a step that reaches a limit of its time; `reached` then says which, and `fix` what raises it."""

    def __init__(self, leader: int, limits: Limits, last: _Last) -> None:
        self.reached = self.fix = ""
        self._leader, self._limits, self._last = leader, limits, last
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin the watch. Raises RuntimeError where no thread can be had."""
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
        """End the watch: afterwards nothing is killed any more."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()


def _judge(code: int, peak_bytes: int, staging: Path, log: Path, last: _Last, by_kernel: bool) -> Any:
    if code < 0:
        held = f"at {peak_bytes / GIB:.1f} GiB{last.doing}"
        if code == -signal.SIGKILL:
            killer = "killed by the kernel, which ran out of memory," if by_kernel else "killed (SIGKILL)"
            raise StepError(f"{killer} {held}", "raise resources.memory_gib or run fewer jobs at once (-n 1)")
        name = {known.value: known.name for known in signal.Signals}.get(-code, f"signal {-code}")
        raise StepError(f"ended by {name} {held}", f"read '{log}', then run again")
    try:
        result = json.loads(_read_regular(staging / "result.json"))
        if "error" in result:
            kind = StoreError if result["error"]["kind"] == "StoreError" else StepError
            raise kind(str(result["error"]["fact"]), str(result["error"]["fix"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise StepCrashError(_end_of(log)) from None
    return result


def _accepted(result: Any, files: dict[str, tuple[int, str]]) -> StepResult:
    """Return the answer of a step as a result, each value of its type. Raises StepCrashError for any other answer."""
    try:
        metrics = {_text(name): value for name, value in result["metrics"].items()}
        for name, value in metrics.items():
            if not isinstance(value, (int, float, str)) or (isinstance(value, float) and not math.isfinite(value)):
                raise StepCrashError(f"metric '{name}' is {value!r}: not a finite number or a text")
            if isinstance(value, str):
                _text(value)
            elif isinstance(value, int):
                _within(abs(value))
        sources = {str(name): str(digest) for name, digest in result["sources"].items()}
        unconfined = tuple(what for what in ("files", "network") if not result["confined"][what])
        took = _within(float(result["seconds"])), int(_within(result["peak_bytes"])), _text(result["processor"])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise StepCrashError(f"the step's answer is malformed: {type(error).__name__}: {error!s:.200}") from None
    return StepResult(files, metrics, *took, sources, unconfined)


def _within(number: float) -> float:
    if not 0 <= number < MOST_OF_A_NUMBER:
        raise ValueError("a number is beyond its bounds")
    return number


def _text(value: Any) -> str:
    text = str(value)
    text.encode()  # raises for half a surrogate pair, which no record can hold
    return text


def _read_regular(path: Path) -> bytes:
    """Return the bytes of a file that a step left. Raises OSError for a link, a pipe, or one beyond the bound."""
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
    """End whatever the step left running, or the step itself if we are leaving early."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
