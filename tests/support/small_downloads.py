"""Downloads from a small server into a folder, tried quickly."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from artifacts.errors import StoreError
from artifacts.sources.download import DownloadedFile, Patience, download_url
from small_server import FileServer

DATA = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(DATA).hexdigest()
PATH = "/a/model.bin"
QUICK = Patience(least_bytes=1000, seconds=5.0, tries=3, pause_seconds=0.01, longest_pause_seconds=1.0)
ONCE = dataclasses.replace(QUICK, all_tries=1)


@pytest.fixture
def url(server: FileServer) -> str:
    """The address of some data."""
    server.files[PATH] = DATA
    return server.address + PATH


def quiet(_message: str, _done: int | None, _total: int | None) -> None:
    """Nobody listens."""


def arrive(url: str, folder: Path, *, pin: str | None = None, patience: Patience = QUICK) -> DownloadedFile:
    """Download in silence."""
    return download_url(url, folder, quiet, pin, patience)


def refusal(url: str, folder: Path, *, pin: str | None = None, patience: Patience = ONCE) -> StoreError:
    """The error of a download that fails."""
    with pytest.raises(StoreError) as caught:
        arrive(url, folder, pin=pin, patience=patience)
    assert "\n" not in caught.value.fact + caught.value.fix
    return caught.value


def head(*lines: str) -> bytes:
    """The head of a 200."""
    return "\r\n".join(("HTTP/1.1 200 OK", *lines, "", "")).encode()
