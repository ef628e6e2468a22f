from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.sources.download import Patience
from small_downloads import DATA, PATH, arrive, head, refusal
from small_server import FileServer

Write = Callable[[bytes], object]


def drip(first: bytes, rest: bytes) -> Callable[[Write], None]:
    """Write `first` at once, then byte after byte."""

    def play(write: Write) -> None:
        write(first)
        for byte in rest:
            write(bytes([byte]))
            time.sleep(0.02)

    return play


@pytest.mark.parametrize(
    "play",
    [
        drip(head("Content-Length: 100000"), bytes(1000)),
        drip(head(), bytes(1000)),
        drip(b"HTTP/1.1 200 OK\r\n", b"X-Long: " + b"x" * 1000),
        drip(head("Transfer-Encoding: chunked"), b"1" + b"0" * 1000),
        drip(head("Transfer-Encoding: chunked") + b"5\r\nabcde\r\n", b"0000000" * 1000),
        drip(b"", b"HTTP/1.1 200 OK" + b" " * 1000),
        lambda _write: time.sleep(3),
    ],
    ids=["body", "body without a length", "headers", "chunk's length", "second chunk", "status", "silence"],
)
def test_the_connection_to_a_server_that_sends_too_little_ends_with_an_error(
    url: str, server: FileServer, tmp_path: Path, play: Callable[[Write], None]
) -> None:
    server.raw[PATH] = play
    started = time.monotonic()
    patience = Patience(least_bytes=1000, seconds=0.3, tries=2, pause_seconds=0.01)
    error = refusal(url, tmp_path, patience=patience)
    assert error.fact in (
        f"'{url}' sends fewer than 1000 bytes in 0.3 s (2 tries)",
        f"'{url}' cannot be fetched: timed out (2 tries)",
    )
    assert time.monotonic() - started < 15
    assert len(server.gets(PATH)) == 2


def test_the_connection_to_a_slow_server_that_sends_enough_stays(url: str, server: FileServer, tmp_path: Path) -> None:
    server.files[PATH] = DATA[: 20 << 14]
    server.pause_seconds = 0.05
    patience = Patience(least_bytes=1000, seconds=0.3, tries=1)
    assert arrive(url, tmp_path, patience=patience).path.read_bytes() == DATA[: 20 << 14]
    assert len(server.gets(PATH)) == 1
