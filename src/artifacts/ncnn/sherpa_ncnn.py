"""sherpa-ncnn: its streaming recogniser, run in a child process, and its `tokens.txt`.

sherpa-ncnn aborts its process on every file that it cannot use, so it runs in a child process.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.runtime.child_process import Answer, Worker
from artifacts.untrusted.read_input import read_text

SAMPLE_RATE_HZ = 16_000
# For loading the model, and for each waveform.
LIMIT_SECONDS = 600.0
TOKENS_NAME = "tokens.txt"
# sherpa-ncnn takes these ids for blank and unknown, whatever their pieces are.
SILENT_PIECES = {0: "<blk>", 2: "<unk>"}

_ID = re.compile(r"[0-9]{1,9}", re.ASCII)


class SherpaFiles(NamedTuple):
    """The files that sherpa-ncnn loads, by its own names for the networks."""

    tokens: Path
    encoder_param: Path
    encoder_bin: Path
    decoder_param: Path
    decoder_bin: Path
    joiner_param: Path
    joiner_bin: Path


class SherpaRecognizer:
    """A model loaded by sherpa-ncnn in a child process, in a `with` statement. StepError if that process ends.

    Decoding is greedy, with one thread and without endpoint detection. Each waveform is a stream of its own.
    """

    def __init__(self, files: SherpaFiles) -> None:
        self._worker = Worker(
            _serve_recognizer,
            [path.absolute() for path in files],
            LIMIT_SECONDS,
            f"{files.encoder_param.name}: sherpa-ncnn",
            "give an encoder that tag_sherpa_ncnn has tagged, with the decoder, the joiner and the tokens of its model",
        )

    def __enter__(self) -> Self:
        self._worker.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._worker.__exit__(kind, error, traceback)

    def tokens(self, waveform: npt.NDArray[np.float32]) -> list[int]:
        """Transcribe a waveform, float32 `[N]`, 16 kHz, −1 to 1, into token ids. No silence is appended to it."""
        answer = self._worker.ask(np.ascontiguousarray(waveform, dtype="<f4").tobytes())
        found: list[int] = json.loads(answer)
        return found


def _serve_recognizer(*words: str) -> Answer:
    """Load the model in the child process; return the function that transcribes a waveform."""
    import sherpa_ncnn

    files = SherpaFiles(*map(Path, words))
    names = {name: str(path) for name, path in files._asdict().items()}
    recognizer = sherpa_ncnn.Recognizer(**names, num_threads=1)

    def answer(request: bytes) -> bytes:
        recognizer.stream = recognizer.recognizer.create_stream()
        recognizer.accept_waveform(SAMPLE_RATE_HZ, np.frombuffer(request, dtype="<f4"))
        recognizer.input_finished()
        return json.dumps([int(token) for token in recognizer.tokens]).encode()

    return answer


def find_tokens(tokens: Path) -> Path:
    """Return the file itself, or `tokens.txt` in an artifact's folder."""
    return tokens if tokens.is_file() else tokens / TOKENS_NAME


def read_tokens(path: Path, count: int) -> list[str]:
    """Read the `count` pieces of a `tokens.txt` in the order of their ids: one `piece id` a line, blank first.

    Raises StepError, with the line, unless each line is a piece and an id of its own. The ids must be 0 to `count` - 1,
    and blank and unknown must have the ids that sherpa-ncnn never emits.
    """
    fix = "give the tokens of the same checkpoint"
    pieces: dict[int, str] = {}
    for number, line in enumerate(read_text(path, fix).split("\n")[:-1], start=1):
        piece, _, identifier = line.rpartition(" ")
        if not piece or " " in piece or not _ID.fullmatch(identifier) or int(identifier) in pieces:
            raise StepError(f"{path.name}:{number}: expected a piece and an id of its own, got '{line[:200]}'", fix)
        pieces[int(identifier)] = piece
    if sorted(pieces) != list(range(count)):
        raise StepError(f"{path.name}: contains {len(pieces)} tokens, the predictor has {count}", fix)
    for silent, name in SILENT_PIECES.items():
        if pieces.get(silent) != name:
            raise StepError(
                f"{path.name}: token {silent} is '{pieces.get(silent)}', and sherpa-ncnn never emits it",
                f"train with '{name}' as token {silent}",
            )
    return [pieces[identifier] for identifier in range(count)]
