from __future__ import annotations

import codecs
import time
from pathlib import Path

import pytest

from artifacts.sources.pages import page_fault, raw_address, way_to_the_file

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
def test_what_cannot_be_the_file_is_named(body: str, name: str, content_type: str, fault: str, tmp_path: Path) -> None:
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
def test_what_may_be_the_file_is_left(body: bytes, name: str, content_type: str, tmp_path: Path) -> None:
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
    assert time.process_time() - started < 5  # a pattern that goes back for each would take for ever


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


def test_the_way_to_the_file_shows_no_secret() -> None:
    assert way_to_the_file("https://github.com/o/r/blob/v1/x?token=secret") == (
        "use 'https://github.com/o/r/raw/v1/x?token=***'"
    )
    assert "/resolve/ instead of /blob/" in way_to_the_file("https://host/o/n/blob/main/x?token=secret")
    assert way_to_the_file("https://host/x") == "use the address of the file itself"
