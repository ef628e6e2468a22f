from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from artifacts.sources.download import is_resumable
from small_downloads import DATA, PATH, QUICK, arrive, head, refusal
from small_server import FileServer


@pytest.mark.parametrize("data", [DATA[::-1], DATA[::-1] + b"more", DATA[::-1][:1_000_000], DATA[:500_000]])
def test_a_server_that_ignores_if_range_does_not_mix_two_files(
    url: str, server: FileServer, tmp_path: Path, data: bytes
) -> None:
    server.break_after = [1_000_000]
    refusal(url, tmp_path)
    server.files[PATH] = data
    server.ignores_if_range = True
    arrived = arrive(url, tmp_path)
    assert (arrived.path.read_bytes() == data, arrived.sha256) == (True, hashlib.sha256(data).hexdigest())


def test_another_server_with_the_same_etag_but_another_length_does_not_continue_a_file(
    url: str, server: FileServer, tmp_path: Path
) -> None:
    server.extra = {"ETag": '"1"'}
    server.ignores_if_range = True
    server.break_after = [1_000_000]
    refusal(url, tmp_path)
    server.files[PATH] = DATA[::-1] + b"more"
    assert arrive(url, tmp_path).path.read_bytes() == DATA[::-1] + b"more"


def test_a_weak_etag_continues_nothing_and_a_date_does(url: str, server: FileServer, tmp_path: Path) -> None:
    server.extra = {"ETag": 'W/"1"'}
    server.break_after = [1_000_000, 1_000_000]
    refusal(url, tmp_path)
    assert not is_resumable(tmp_path)
    server.extra = {"ETag": 'W/"1"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    refusal(url, tmp_path)
    assert json.loads((tmp_path / "validator").read_text())["validator"] == "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize("extra", [b"x", b"x" * 100_000])
def test_more_than_the_announced_length_is_an_error(url: str, server: FileServer, tmp_path: Path, extra: bytes) -> None:
    server.raw[PATH] = lambda write: (write(head("Content-Length: 5")), write(b"abcde"), write(extra))
    error = refusal(url, tmp_path)
    assert error.fact == f"'{url}' has more than the 5 bytes that were announced"
    assert list(tmp_path.iterdir()) == [], "nothing of it is kept"
    assert arrive(url, tmp_path, pin=hashlib.sha256(b"abcde").hexdigest()).path.read_bytes() == b"abcde"


@pytest.mark.parametrize("said", ["abc", "-5", "5, 6", "", "5.0", "0x5"])
def test_a_length_that_is_none_is_told(url: str, server: FileServer, tmp_path: Path, said: str) -> None:
    server.raw[PATH] = lambda write: write(head(f"Content-Length: {said}") + b"abcde")
    assert f"'{url}' announces a length of '" in refusal(url, tmp_path).fact


def test_a_length_that_is_said_twice_is_one_length(url: str, server: FileServer, tmp_path: Path) -> None:
    server.raw[PATH] = lambda write: write(head("Content-Length: 5", "Content-Length: 5") + b"abcde")
    assert arrive(url, tmp_path).is_whole
    server.raw[PATH] = lambda write: write(head("Content-Length: 5", "Content-Length: 6") + b"abcde")
    (tmp_path / "whole").unlink()
    assert "announces a length of 'several' bytes" in refusal(url, tmp_path).fact


def test_a_body_without_a_length_is_not_known_to_be_whole(url: str, server: FileServer, tmp_path: Path) -> None:
    server.raw[PATH] = lambda write: write(head() + b"abcde")
    arrived = arrive(url, tmp_path)
    assert (arrived.path.read_bytes(), arrived.is_whole) == (b"abcde", False)
    server.raw[PATH] = lambda write: write(b"HTTP/1.0 200 OK\r\n\r\nabcde")
    assert not arrive(url, tmp_path).is_whole
    assert arrive(url, tmp_path, pin=hashlib.sha256(b"abcde").hexdigest()).is_whole, "the pin says so"
    server.raw[PATH] = lambda write: write(head())
    assert "sends nothing, and says no length" in refusal(url, tmp_path).fact
    server.raw[PATH] = lambda write: write(b"HTTP/1.1 200 OK\r\nX-Cut: o")
    assert "sends nothing, and says no length" in refusal(url, tmp_path).fact


@pytest.mark.parametrize(
    "said", ["chunked ", "\r\n chunked", "identity\r\nTransfer-Encoding: chunked", "gzip, chunked"]
)
def test_chunks_that_the_library_does_not_unpack_are_refused(
    url: str, server: FileServer, tmp_path: Path, said: str
) -> None:
    server.raw[PATH] = lambda write: write(head(f"Transfer-Encoding: {said}") + b"5\r\nabcde\r\n0\r\n\r\n")
    assert "' comes with the transfer encoding '" in refusal(url, tmp_path).fact
    server.raw[PATH] = lambda write: write(head(*["Transfer-Encoding: chunked"] * 2) + b"5\r\nabcde\r\n0\r\n\r\n")
    assert arrive(url, tmp_path).path.read_bytes() == b"abcde"


def test_an_encoding_that_a_second_header_names_is_refused(url: str, server: FileServer, tmp_path: Path) -> None:
    encodings = "Content-Encoding: identity", "Content-Encoding: gzip"
    server.raw[PATH] = lambda write: write(head(*encodings, "Content-Length: 5") + b"abcde")
    assert "arrived with the encoding 'identity, gzip', not as it is" in refusal(url, tmp_path).fact


@pytest.mark.parametrize(
    "body", [b"", b"5", b"5\r\n", b"5\r\nabc", b"5\r\nabcde", b"5\r\nabcde\r\n", b"5\r\nabcde\r\nx\r\n"]
)
def test_chunks_that_are_cut_off_are_an_error(url: str, server: FileServer, tmp_path: Path, body: bytes) -> None:
    server.raw[PATH] = lambda write: write(head("Transfer-Encoding: chunked") + body)
    error = refusal(url, tmp_path, patience=QUICK)
    assert error.fact == f"'{url}' broke off before its last chunk (3 tries)"
    server.raw[PATH] = lambda write: write(head("Transfer-Encoding: chunked") + b"5\r\nabcde\r\n0\r\n\r\n")
    arrived = arrive(url, tmp_path)
    assert (arrived.path.read_bytes(), arrived.is_whole) == (b"abcde", True)
