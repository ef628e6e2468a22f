"""Read a file's version and length, and the range of the body, from a server's headers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus

from artifacts.sources.http_get import Answer, RefusedError, one_line


@dataclass(frozen=True)
class Kept:
    """A partial download: the file's validator and size, as its server gave them, and the bytes that have arrived."""

    validator: str
    total: int | None
    size: int


def beginning_of(answer: Answer, kept: Kept | None) -> int | None:
    """Return the offset at which a body begins; None if it does not continue what is kept.

    Raises `RefusedError` for a part that was not asked for.
    """
    if answer.status == HTTPStatus.OK:
        return 0
    if kept is None:
        raise RefusedError(f"answers {answer.status} to a request for the whole file", "ask its owner")
    said = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range") or "")
    if said is None or validator_of(answer.headers) not in (None, kept.validator):
        return None
    begins_at, total = said.groups()
    if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # all of it had arrived, or too much
        begins_at = total if begins_at is None else None
    elif kept.total is not None and total not in ("*", str(kept.total)):
        return None
    return kept.size if begins_at == str(kept.size) else None


def length_of(answer: Answer, begins_at: int) -> tuple[int | None, bool]:
    """Return how many bytes the file has, if that is said, and whether the body comes in chunks, whose end is sure.

    Raises `RefusedError` for a length that is not a number.
    """
    if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return begins_at, False
    total = (answer.headers.get("Content-Range") or "").rpartition("/")[2]
    total = total if answer.status == HTTPStatus.PARTIAL_CONTENT else ""
    # As they are, and all of them: the library unpacks 'chunked', and neither 'chunked ' nor what another one says.
    transfer = ",".join(dict.fromkeys(answer.headers.get_all("Transfer-Encoding") or [])).lower()
    if transfer not in ("", "chunked", "identity"):
        raise RefusedError(f"comes with the transfer encoding '{one_line(transfer)[:40]}'", "ask its owner")
    if total.isdigit():
        return int(total), transfer == "chunked"
    if transfer == "chunked":
        return None, True
    said = {text.strip() for given in answer.headers.get_all("Content-Length") or [] for text in given.split(",")}
    if not said:
        return None, False
    [text] = said if len(said) == 1 else ["several"]
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise RefusedError(f"announces a length of '{text[:20]}' bytes", "ask its owner")
    return begins_at + int(text), False


def validator_of(headers: Message) -> str | None:
    """Return what names this version of the file: its ETag, unless that is a weak one, else its date."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
