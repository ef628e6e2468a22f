"""Run what may crash on a bad file in a child process: ncnn, sherpa-ncnn and pnnx abort where they meet an error.

`run_program` runs a program to its end. `Worker` keeps a child that loads a model once and answers requests: the child
calls a function of this package, which returns a function from bytes to bytes.

A child has one thread, because ncnn's threads wait by spinning: with more of them than free cores they take many times
as long. It dies with its parent. Its output is kept for the error, which quotes the end of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import IO, Self

from artifacts.errors import StepError

MAX_REASON_CHARACTERS = 300
QUOTED_LINES = 2
OUTPUT_NAME = "output.txt"
PR_SET_PDEATHSIG = 1
SOURCES = Path(__file__).parents[2]

_LIBC = ctypes.CDLL(None)

# A message between a worker and its parent: the number of bytes, and whether they are a StepError.
_HEADER = struct.Struct("<q?")

Answer = Callable[[bytes], bytes]


def run_program(command: Sequence[str | Path], folder: Path, limit_seconds: float, fact: str, fix: str) -> None:
    """Run `command` in `folder` and wait for it; its output goes to `output.txt` there.

    Raises StepError unless it exits with 0 within the limit: `fact`, how it ended, and the last lines of its output.
    """
    output = folder / OUTPUT_NAME
    with output.open("wb") as file:
        process = _start(command, folder, file, stdin=subprocess.DEVNULL, stdout=file)
        try:
            code = process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            raise StepError(f"{fact}: not done after {limit_seconds:.0f} s{_last_lines(output)}", fix) from None
        finally:
            process.kill()
            process.wait()
    if code:
        raise StepError(f"{fact}: {_ending(code, output)}", fix)


class Worker:
    """A child process that answers requests, in a `with` statement: `with Worker(open_model, [path], …) as worker`.

    `open_model` is a function at the top of a module. The child calls it with the words; it returns the function that
    answers. A StepError of either is raised here as it is. If the child ends in another way, or does not answer within
    the limit, the StepError names the `subject` ("encoder.param: ncnn") and what it was doing.
    """

    def __init__(
        self,
        open_model: Callable[..., Answer],
        words: Sequence[str | Path],
        limit_seconds: float,
        subject: str,
        fix: str,
    ) -> None:
        """`limit_seconds` bounds the opening, and each answer."""
        self._command = [sys.executable, "-P", "-m", __name__, open_model.__module__, open_model.__name__, *words]
        self._limit_seconds = limit_seconds
        self._subject = subject
        self._fix = fix

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory()
        self._output = Path(self._folder.name) / OUTPUT_NAME
        with self._output.open("wb") as file:
            self._process = _start(self._command, None, file, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self._receive("fails to load it")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def ask(self, request: bytes) -> bytes:
        """Send a request and return its answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the child has ended: `_receive` says how
            _send(self._process.stdin, request)
        return self._receive("fails to run it")

    def _receive(self, fact: str) -> bytes:
        assert self._process.stdout is not None
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            self._process.kill()

        timer = threading.Timer(self._limit_seconds, end)
        timer.start()
        try:
            message = _read(self._process.stdout)
        finally:
            timer.cancel()
        if message is None:
            code = self._process.wait()
            late = f"not done after {self._limit_seconds:.0f} s{_last_lines(self._output)}"
            ending = late if is_late.is_set() else _ending(code, self._output)
            raise StepError(f"{self._subject} {fact}: {ending}", self._fix)
        is_error, answer = message
        if is_error:
            raise StepError(*json.loads(answer))
        return answer


def _start(
    command: Sequence[str | Path], folder: Path | None, output: IO[bytes], *, stdin: int, stdout: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCES)},
        stdin=stdin,
        stdout=stdout,
        stderr=output,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - safe with threads: it only calls prctl
    )


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _send(pipe: IO[bytes], message: bytes, *, is_error: bool = False) -> None:
    pipe.write(_HEADER.pack(len(message), is_error))
    pipe.write(message)
    pipe.flush()


def _read(pipe: IO[bytes]) -> tuple[bool, bytes] | None:
    """Read a message and whether it is an error; None if the pipe ends before it does."""
    header = pipe.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    size, is_error = _HEADER.unpack(header)
    message = pipe.read(size)
    return (is_error, message) if len(message) == size else None


def _ending(code: int, output: Path) -> str:
    """Say how a process ended, with the end of its output."""
    # A shell, and pnnx's own wrapper, turn a signal into 128 + its number.
    number = -code if code < 0 else code - 128
    names = {known.value: known.name for known in signal.Signals}
    how = f"ended by {names[number]}" if number in names else f"exit code {code}"
    return how + _last_lines(output)


def _last_lines(output: Path) -> str:
    """Join the last lines of an output, without the names of temporary folders, which differ from run to run."""
    text = output.read_text(encoding="utf-8", errors="replace").replace(f"{output.parent}/", "")
    words = " ".join(" ".join(text.splitlines()[-QUOTED_LINES:]).split())
    if not words:
        return ""
    return f": {words}" if len(words) <= MAX_REASON_CHARACTERS else f": …{words[-MAX_REASON_CHARACTERS:]}"


def _serve(module: str, function: str, words: Sequence[str]) -> None:
    """Open the model, say so with an empty message, and answer requests until the parent closes the pipe."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is not an answer
    try:
        answer: Answer = getattr(import_module(module), function)(*words)
        _send(answers, b"")
        while request := _read(sys.stdin.buffer):
            _send(answers, answer(request[1]))
    except StepError as error:
        _send(answers, json.dumps([error.fact, error.fix]).encode(), is_error=True)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], sys.argv[3:])
