from __future__ import annotations

import codecs
import hashlib
import json
import time
from pathlib import Path

import pytest

from artifacts.sources.download import is_resumable
from artifacts.sources.http_response import fix_for_page, page_fault, raw_address
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
def test_an_invalid_length_is_reported(url: str, server: FileServer, tmp_path: Path, said: str) -> None:
    server.raw[PATH] = lambda write: write(head(f"Content-Length: {said}") + b"abcde")
    assert f"'{url}' announces a length of '" in refusal(url, tmp_path).fact


def test_a_repeated_length_is_one_length(url: str, server: FileServer, tmp_path: Path) -> None:
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


PAGE = "<!DOCTYPE html>\n<html><body>Sign in</body></html>"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("body", "name", "content_type", "fault"),
    [
        (POINTER, "x.nemo", "application/octet-stream", "is a Git LFS pointer, not the file it points to"),
        (POINTER, "x.txt", "text/plain", "is a Git LFS pointer, not the file it points to"),
        (POINTER, "x.html", "text/html", "is a Git LFS pointer, not the file it points to"),
        (PAGE, "x.nemo", "text/html; charset=utf-8", "is a web page, not the file"),
        (PAGE, "x.nemo", "application/octet-stream", "is a web page, not the file"),
        (PAGE.upper(), "x.nemo", "", "is a web page, not the file"),
        ("\n \t" + PAGE, "x.nemo", "", "is a web page, not the file"),
        ("\ufeff" + PAGE, "x.nemo", "", "is a web page, not the file"),
        ("<html lang='en'>", "x.onnx", "", "is a web page, not the file"),
        ("<!-- a --> <!-- b -->\n<!doctype\n html>", "x.onnx", "", "is a web page, not the file"),
        ("<?xml version='1.0'?><!DOCTYPE html>", "x.onnx", "", "is a web page, not the file"),
        (PAGE, "tokens.txt", "", "is a web page, not the file"),
        (PAGE, "download", "", "is a web page, not the file"),
        (PAGE, "", "", "is a web page, not the file"),
        ("<h1>Not found</h1>", "x.nemo", "text/html", "is a web page, not the file"),
        ("<h1>Not found</h1>", "download", "TEXT/HTML", "is a web page, not the file"),
        ("Quota exceeded", "x.nemo", "text/html", "is a web page, not the file"),
        ('{"error": "no"}', "x.nemo", "application/json", 'is a text, not the file; it begins with: {"error": "no"}'),
        ("<?xml version='1.0'?><Error>", "x.tar", "", "is a text, not the file; it begins with: <?xml"),
        ('[{"error": "https://host/?t=secret"}]', "X.ONNX", "", "is a text, not the file; it begins with: [{"),
    ],
)
def test_a_body_that_cannot_be_the_file_is_reported(
    body: str, name: str, content_type: str, fault: str, tmp_path: Path
) -> None:
    (tmp_path / "body").write_text(body, encoding="utf-8")
    told = page_fault(tmp_path / "body", name, content_type)
    assert told is not None
    assert told.startswith(fault)
    assert "secret" not in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("body", "name", "content_type"),
    [
        (PAGE.encode(), "page.html", "text/html"),
        (PAGE.encode(), "PAGE.HTM", ""),
        (b"\x08\x07\x12\x04onnx<html>", "x.onnx", "text/html"),
        (b"PK\x03\x04<html>", "x.nemo", "text/html"),
        (b"a 1\nb 2\n", "tokens.txt", "text/html"),
        (b"a 1\nb 2\n", "get.php", "text/html"),
        (b'{"a": 1}', "config.json", "application/json"),
        (b"<?xml version='1.0'?><a/>", "x.xml", "text/xml"),
        (b"<a/>", "x.yaml", "text/plain"),
        (b"<htmlish>", "x.txt", "text/plain"),
        (b"# about <html>", "x.md", "text/plain"),
        (b"other bytes", "notes.bin", "application/octet-stream"),
        (b"the version https://git-lfs.github.com/spec/v1", "x.txt", ""),
    ],
)
def test_a_body_that_may_be_the_file_is_accepted(body: bytes, name: str, content_type: str, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(body)
    assert page_fault(tmp_path / "body", name, content_type) is None


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_a_page_in_utf_16_is_a_page(order: str, tmp_path: Path) -> None:
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}[order]
    (tmp_path / "body").write_bytes(mark + PAGE.encode(order))
    assert page_fault(tmp_path / "body", "x.nemo", "") == "is a web page, not the file"


def test_many_comments_take_no_time(tmp_path: Path) -> None:
    (tmp_path / "body").write_text("<!---->" * 580 + "x")
    started = time.process_time()
    assert page_fault(tmp_path / "body", "x.txt", "") is None
    assert time.process_time() - started < 5  # a pattern that backtracks for each comment would not end


@pytest.mark.parametrize(
    ("url", "raw"),
    [
        ("https://huggingface.co/o/n/blob/main/a/x.nemo", "https://huggingface.co/o/n/resolve/main/a/x.nemo"),
        ("https://huggingface.co/o/n/raw/main/x.nemo", "https://huggingface.co/o/n/resolve/main/x.nemo"),
        ("https://huggingface.co/datasets/o/n/blob/main/x", "https://huggingface.co/datasets/o/n/resolve/main/x"),
        ("https://mirror.example/o/n/blob/main/x.nemo", "https://mirror.example/o/n/resolve/main/x.nemo"),
        ("https://github.com/o/r/blob/v1/a/x.onnx?raw=0", "https://github.com/o/r/raw/v1/a/x.onnx?raw=0"),
        ("https://raw.githubusercontent.com/o/r/v1/x", "https://media.githubusercontent.com/media/o/r/v1/x"),
        ("https://gitlab.example/g/r/-/blob/main/x", "https://gitlab.example/g/r/-/raw/main/x"),
        ("https://huggingface.co/o/n/resolve/main/blob/x", None),
        ("https://github.com/o/r/raw/v1/blob/x", None),
        ("https://host/o/n/blob/main/x.nemo", None),
    ],
)
def test_the_address_of_the_file_is_known_where_its_page_is(
    url: str, raw: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    assert raw_address(url) == raw


def test_the_fix_for_a_page_shows_no_secret() -> None:
    assert fix_for_page("https://github.com/o/r/blob/v1/x?token=secret") == (
        "use 'https://github.com/o/r/raw/v1/x?token=***'"
    )
    assert "/resolve/ instead of /blob/" in fix_for_page("https://host/o/n/blob/main/x?token=secret")
    assert fix_for_page("https://host/x") == "use the address of the file itself"
