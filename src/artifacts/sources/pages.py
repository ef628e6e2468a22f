"""Detect web pages, Git LFS pointers and error messages that arrive instead of a file.

Only what cannot be the file is refused: a page unless the name ends in `.html`, and a text in angle or curly brackets
where the name is that of a binary format. Bytes that the recipe pins are not looked at.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from artifacts.web_address import shown_url, without_secrets

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
    """Return what a body is that cannot be the file `file_name`, worded to follow the name; None for a file.

    `content_type` is what the server says of it, or empty.
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
    """The beginning of a file as text, or None if it is binary."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = head.decode(encoding, errors="ignore" if encoding == "utf-16" else "replace")
    binary = any(ord(character) < 32 and character not in "\t\n\v\f\r\x1b" for character in text)
    return None if binary else text


def _beginning(text: str) -> str:
    shown = "".join(character for character in " ".join(text.split()) if character.isprintable())
    return without_secrets(shown)[:80]


def way_to_the_file(url: str) -> str:
    """Say what address to use instead of one that gives a page or a pointer: the beginning of a fix."""
    raw = raw_address(url)
    if raw is not None:
        return f"use '{shown_url(raw)}'"
    if "/blob/" in urlsplit(url).path:
        return "use the address of the raw file: on the hub it has /resolve/ instead of /blob/, on GitHub /raw/"
    return "use the address of the file itself"


def raw_address(url: str) -> str | None:
    """Return the raw address of a file, given that of its page on the hub, GitHub or GitLab; None elsewhere."""
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
