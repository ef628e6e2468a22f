"""Read from a server's response which bytes of the file it has, and whether it is the file at all.

Web pages, Git LFS pointers and error messages arrive instead of files. Only what cannot be the file is refused: a page
unless the name ends in `.html`, and a text that begins with `<`, `{` or `[` if the name is that of a binary format.
Bytes that the recipe pins are not checked.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from artifacts.sources.http_get import Answer, RefusedError, one_line
from artifacts.web_address import shown_url, without_secrets


@dataclass(frozen=True)
class PartialFile:
    """A partial download: the file's validator and size, as its server gave them, and the number of bytes here."""

    validator: str
    total: int | None
    size: int


def beginning_of(answer: Answer, partial: PartialFile | None) -> int | None:
    """Return the offset at which a body begins; None if it does not continue the partial download.

    Raises `RefusedError` for a part that was not asked for.
    """
    if answer.status == HTTPStatus.OK:
        return 0
    if partial is None:
        raise RefusedError(f"answers {answer.status} to a request for the whole file", "ask its owner")
    content_range = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range") or "")
    if content_range is None or validator_of(answer.headers) not in (None, partial.validator):
        return None
    begins_at, total = content_range.groups()
    if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # all of it had arrived, or too much
        begins_at = total if begins_at is None else None
    elif partial.total is not None and total not in ("*", str(partial.total)):
        return None
    return partial.size if begins_at == str(partial.size) else None


def length_of(answer: Answer, begins_at: int) -> tuple[int | None, bool]:
    """Return the length of the file, if the server says it, and whether the body comes in chunks: their end is certain.

    Raises `RefusedError` for a length that is not a number.
    """
    if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return begins_at, False
    total = (answer.headers.get("Content-Range") or "").rpartition("/")[2]
    total = total if answer.status == HTTPStatus.PARTIAL_CONTENT else ""
    # All headers, as they are: the library unpacks 'chunked', but neither 'chunked ' nor a second encoding.
    transfer = ",".join(dict.fromkeys(answer.headers.get_all("Transfer-Encoding") or [])).lower()
    if transfer not in ("", "chunked", "identity"):
        raise RefusedError(f"comes with the transfer encoding '{one_line(transfer)[:40]}'", "ask its owner")
    if total.isdigit():
        return int(total), transfer == "chunked"
    if transfer == "chunked":
        return None, True
    lengths = {text.strip() for line in answer.headers.get_all("Content-Length") or [] for text in line.split(",")}
    if not lengths:
        return None, False
    [text] = lengths if len(lengths) == 1 else ["several"]
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise RefusedError(f"announces a length of '{text[:20]}' bytes", "ask its owner")
    return begins_at + int(text), False


def validator_of(headers: Message) -> str | None:
    """Return the name of this version of the file: its ETag, unless that is a weak one, else its date."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


HEAD_BYTES = 4096
PAGES = (".html", ".htm", ".xhtml")
BINARY = (
    ".7z", ".bin", ".bz2", ".ckpt", ".data", ".flac", ".gguf", ".gz", ".mp3", ".nemo", ".npy", ".npz", ".ogg", ".onnx",
    ".ort", ".pb", ".pt", ".pth", ".safetensors", ".tar", ".tflite", ".tgz", ".wav", ".xz", ".zip", ".zst",
)  # fmt: skip

_POINTER = b"version https://git-lfs.github.com/spec/"
# An XML declaration and comments may come before a page begins. Atomic, so that many comments cost no time.
_PAGE = re.compile(r"\s*+(?>(?:<\?xml.*?\?>|<!--.*?-->)\s*+)*+<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)


def page_fault(path: Path, file_name: str, content_type: str) -> str | None:
    """Return why a body cannot be the file `file_name`, in words that follow its name; None if it can.

    `content_type` is the server's header, or empty.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(_POINTER):
        return "is a Git LFS pointer, not the file it points to"
    suffix = PurePosixPath(file_name).suffix.lower()
    text = _text(head)
    if text is None or suffix in PAGES:
        return None
    is_html = content_type.partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")
    first = text.lstrip()[:1]
    if _PAGE.match(text) or (is_html and (first == "<" or suffix in BINARY)):
        return "is a web page, not the file"
    if suffix in BINARY and first and first in "{[<":
        return f"is a text, not the file; it begins with: {_beginning(text)}"
    return None


def _text(head: bytes) -> str | None:
    """Return the beginning of a file as text, or None if it is binary."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = head.decode(encoding, errors="ignore" if encoding == "utf-16" else "replace")
    binary = any(ord(character) < 32 and character not in "\t\n\v\f\r\x1b" for character in text)
    return None if binary else text


def _beginning(text: str) -> str:
    shown = "".join(character for character in " ".join(text.split()) if character.isprintable())
    return without_secrets(shown)[:80]


def fix_for_page(url: str) -> str:
    """Return the beginning of a fix: the address to use instead of one that gives a page or a pointer."""
    raw = raw_address(url)
    if raw is not None:
        return f"use '{shown_url(raw)}'"
    if "/blob/" in urlsplit(url).path:
        return "use the address of the raw file: on the hub it has /resolve/ instead of /blob/, on GitHub /raw/"
    return "use the address of the file itself"


def raw_address(url: str) -> str | None:
    """Return the raw address of a file from that of its page on the hub, GitHub or GitLab; None for other sites."""
    parts = urlsplit(url)
    hub = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").netloc
    path = parts.path
    if parts.netloc in (hub, "huggingface.co", "hf.co"):
        path = re.sub(r"^((?:/(?:datasets|spaces))?/[^/]+/[^/]+)/(?:blob|raw)/", r"\1/resolve/", path)
    elif parts.netloc in ("github.com", "www.github.com"):
        path = re.sub(r"^(/[^/]+/[^/]+)/blob/", r"\1/raw/", path)
    elif parts.netloc == "raw.githubusercontent.com":
        parts, path = parts._replace(netloc="media.githubusercontent.com"), f"/media{path}"
    else:
        path = path.replace("/-/blob/", "/-/raw/", 1)
    return urlunsplit(parts._replace(path=path)) if (parts.netloc, path) != urlsplit(url)[1:3] else None
