"""`tokens.txt` as sherpa-ncnn reads it: a line `piece id` for each token, blank first."""

from __future__ import annotations

import re
from pathlib import Path

from artifacts.errors import StepError
from artifacts.untrusted.read_input import read_text

NAME = "tokens.txt"
SILENT_PIECES = {0: "<blk>", 2: "<unk>"}
"""sherpa-ncnn takes these ids for no tokens, whatever they are called."""

_ID = re.compile(r"[0-9]{1,9}", re.ASCII)


def find_tokens(tokens: Path) -> Path:
    """The file itself, or the one in an artifact's folder."""
    return tokens if tokens.is_file() else tokens / NAME


def read_tokens(path: Path, count: int) -> list[str]:
    """Read the `count` pieces in the order of their ids.

    Raises StepError, with the line, for one that is not a piece and an id of its own; if the ids are not those below
    `count`; and if ids that sherpa-ncnn never says are other pieces than blank and unknown.
    """
    fix = "give the tokens of the same checkpoint"
    pieces: dict[int, str] = {}
    for number, line in enumerate(read_text(path, fix).split("\n")[:-1], start=1):
        piece, _, identifier = line.rpartition(" ")
        if not piece or " " in piece or not _ID.fullmatch(identifier) or int(identifier) in pieces:
            raise StepError(f"{path.name}:{number}: expected a piece and an id of its own, got '{line[:200]}'", fix)
        pieces[int(identifier)] = piece
    if sorted(pieces) != list(range(count)):
        raise StepError(f"{path.name}: holds {len(pieces)} tokens, the predictor knows {count}", fix)
    for silent, name in SILENT_PIECES.items():
        if pieces.get(silent) != name:
            raise StepError(
                f"{path.name}: the token {silent} is '{pieces.get(silent)}', and sherpa-ncnn never says it",
                f"train with '{name}' as the token {silent}",
            )
    return [pieces[identifier] for identifier in range(count)]
