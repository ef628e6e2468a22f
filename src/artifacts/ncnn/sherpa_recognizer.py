"""sherpa-ncnn's streaming recogniser, in a process of its own: it ends its process on whatever it does not like.

`python -m artifacts.ncnn.sherpa_recognizer <file>…` is that process. It loads the model, says so, and answers each
waveform that comes in on stdin, float32 behind its length as 8 bytes, with a line of JSON: the token ids. Decoding is
greedy, with one thread, and no endpoints are looked for; each waveform has a stream of its own.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.runtime.child_process import SAID, child_environment, die_with_parent, ending

SAMPLE_RATE_HZ = 16_000
LIMIT_SECONDS = 600.0
"""For loading, and for each waveform."""

_COUNT = struct.Struct("<q")


class SherpaFiles(NamedTuple):
    """What sherpa-ncnn loads, by its own names for the networks; `tokens` has a line `piece id` for each token."""

    tokens: Path
    encoder_param: Path
    encoder_bin: Path
    decoder_param: Path
    decoder_bin: Path
    joiner_param: Path
    joiner_bin: Path


class SherpaRecognizer:
    """A model loaded by sherpa-ncnn elsewhere; use it in a `with` statement. StepError whenever that process ends."""

    def __init__(self, files: SherpaFiles) -> None:
        self._files = files

    def __enter__(self) -> Self:
        self._folder = TemporaryDirectory()
        self._said = Path(self._folder.name) / SAID
        with self._said.open("wb") as said:
            files = (str(path.absolute()) for path in self._files)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "artifacts.ncnn.sherpa_recognizer", *files],
                env=child_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
            )
        try:
            self._answer("does not load it")
        except StepError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def tokens(self, waveform: npt.NDArray[np.float32]) -> list[int]:
        """The token ids heard in a waveform, float32 `[N]`, 16 kHz, −1 to 1, which ends where it ends."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(_COUNT.pack(len(waveform)))
            self._process.stdin.write(np.ascontiguousarray(waveform, dtype="<f4").tobytes())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, which the missing answer tells
        found: list[int] = self._answer("does not survive running it")
        return found

    def _answer(self, fact: str) -> Any:
        assert self._process.stdout is not None
        late = threading.Timer(LIMIT_SECONDS, self._process.kill)
        late.start()
        try:
            line = self._process.stdout.readline()
        finally:
            late.cancel()
        if line.endswith(b"\n"):
            return json.loads(line)
        raise StepError(
            f"{self._files.encoder_param.name}: sherpa-ncnn {fact}: {ending(self._process.wait(), self._said)}",
            "give an encoder that tag_sherpa_ncnn has tagged, with the decoder, the joiner and the tokens of its model",
        )


def _main(files: SherpaFiles) -> None:
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    import sherpa_ncnn

    names = files._asdict()
    recognizer = sherpa_ncnn.Recognizer(**{name: str(path) for name, path in names.items()}, num_threads=1)
    answers.write("true\n")
    answers.flush()
    while count := sys.stdin.buffer.read(_COUNT.size):
        samples = np.frombuffer(sys.stdin.buffer.read(4 * _COUNT.unpack(count)[0]), dtype="<f4")
        recognizer.stream = recognizer.recognizer.create_stream()
        recognizer.accept_waveform(SAMPLE_RATE_HZ, samples)
        recognizer.input_finished()
        answers.write(json.dumps([int(token) for token in recognizer.tokens]) + "\n")
        answers.flush()


if __name__ == "__main__":
    _main(SherpaFiles(*map(Path, sys.argv[1:])))
