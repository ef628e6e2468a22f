from __future__ import annotations

import dataclasses
import gzip
import hashlib
import itertools
import time
from pathlib import Path

import pytest

from artifacts.sources.download import download_url, is_resumable
from small_downloads import DATA, PATH, QUICK, SHA256, arrive, head, refusal
from small_server import FileServer


def test_a_file_arrives_whole_and_says_how_far_it_is(url: str, tmp_path: Path) -> None:
    said: list[tuple[str, int | None, int | None]] = []
    arrived = download_url(url, tmp_path, lambda *args: said.append(args))
    assert arrived.path.read_bytes() == DATA
    assert (arrived.sha256, arrived.is_whole) == (SHA256, True)
    assert said[-1] == ("fetching, bytes", len(DATA), len(DATA))
    done = [done or 0 for _, done, _ in said]
    assert done == sorted(done)
    assert len(said) > 3
    assert {path.name for path in tmp_path.iterdir()} == {"whole"}


def test_a_download_goes_on_in_the_same_run_through_any_number_of_breaks(
    url: str, server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.break_after = [1_000_000, 500_000, 0, 2_000_000, 300_000, 300_000, 300_000]
    said: list[str] = []
    arrived = download_url(f"{url}?", tmp_path, lambda message, _done, _total: said.append(message), None, QUICK)
    assert arrived.path.read_bytes() == DATA
    starts = itertools.accumulate([1_000_000, 500_000, 0, 2_000_000, 300_000, 300_000, 300_000])
    assert [one.range for one in server.gets(PATH)] == [None, *(f"bytes={start}-" for start in starts)]
    told = "broke off after 1000000 of 5120000 bytes; tried again in 0 s"
    assert told in said
    assert "broke off after 1000000 of 5120000 bytes; it is tried again in 0.0 s" in caplog.text


def test_a_partial_file_is_kept_and_continued_by_the_next_run(url: str, server: FileServer, tmp_path: Path) -> None:
    server.break_after = [1_000_000, 500_000, 0, 2_000_000]
    for arrived in (1_000_000, 1_500_000, 1_500_000, 3_500_000):
        error = refusal(url, tmp_path)
        assert error.fact == f"'{url}' broke off after {arrived} of {len(DATA)} bytes"
        assert error.fix == "check the network, then run again; the download continues where it stopped"
        assert is_resumable(tmp_path)
    assert arrive(url, tmp_path).path.read_bytes() == DATA
    asked = [one.range for one in server.gets(PATH)]
    assert asked == [None, "bytes=1000000-", "bytes=1500000-", "bytes=1500000-", "bytes=3500000-"]


def test_tries_that_bring_nothing_are_bounded_and_those_that_do_are_not_counted(
    url: str, server: FileServer, tmp_path: Path
) -> None:
    server.break_after = [0, 0, 5000, 0, 999, 999, *[0] * 10]
    assert refusal(url, tmp_path, patience=QUICK).fact.endswith("broke off after 6998 of 5120000 bytes (6 tries)")
    assert len(server.gets(PATH)) == 6


def test_all_tries_together_are_bounded(url: str, server: FileServer, tmp_path: Path) -> None:
    server.break_after = [5000] * 100
    patience = dataclasses.replace(QUICK, all_tries=7)
    assert refusal(url, tmp_path, patience=patience).fact.endswith("broke off after 35000 of 5120000 bytes (7 tries)")
    assert len(server.gets(PATH)) == 7


def test_a_file_that_changed_on_the_server_is_begun_anew(url: str, server: FileServer, tmp_path: Path) -> None:
    server.break_after = [1_000_000]
    refusal(url, tmp_path)
    server.files[PATH] = DATA[::-1]
    assert arrive(url, tmp_path).path.read_bytes() == DATA[::-1]


def test_a_part_that_is_longer_than_the_file_is_begun_anew(url: str, server: FileServer, tmp_path: Path) -> None:
    server.break_after = [1_000_000]
    refusal(url, tmp_path)
    (tmp_path / "part").write_bytes(bytes(len(DATA) + 5))
    assert arrive(url, tmp_path).path.read_bytes() == DATA


@pytest.mark.parametrize(
    "validator",
    [
        None,
        "",
        '"an etag"',
        "{}",
        "[]",
        '{"validator": 5, "total": null}',
        '{"validator": "x"}',
        '{"validator": "',
        "\0",
    ],
)
def test_a_part_without_a_valid_validator_is_not_continued(
    url: str, server: FileServer, tmp_path: Path, validator: str | None
) -> None:
    (tmp_path / "part").write_bytes(b"of another file")
    if validator is not None:
        (tmp_path / "validator").write_text(validator)
    assert not is_resumable(tmp_path)
    assert arrive(url, tmp_path).path.read_bytes() == DATA
    assert server.gets(PATH)[0].range is None


def test_a_whole_file_of_an_earlier_run_is_used_unless_the_pin_differs(
    url: str, server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "whole").write_bytes(b"earlier")
    assert arrive(url, tmp_path).path.read_bytes() == b"earlier"
    assert arrive(url, tmp_path, pin=SHA256).path.read_bytes() == DATA
    assert len(server.gets(PATH)) == 1


def test_an_invalid_address_is_reported(tmp_path: Path) -> None:
    assert "cannot be fetched" in refusal("http://127.0.0.1:9/x", tmp_path, patience=QUICK).fact
    assert "(3 tries)" not in refusal("http://127.0.0.1:9/x", tmp_path, patience=QUICK).fact, "nothing there: one try"
    assert "cannot be fetched" in refusal("http://no such host/x", tmp_path).fact
    assert "cannot be fetched" in refusal("http://nowhere.invalid/x", tmp_path, patience=QUICK).fact
    error = refusal("http://user:secret@host/x", tmp_path)
    assert error.fact == (
        "'http://host/x' cannot be fetched: the address contains a user name or password, and recipes are shared"
    )
    assert "~/.netrc" in error.fix


@pytest.mark.parametrize(
    ("status", "seconds"), [(429, 0), (500, 0), (502, 0), (503, 0), (504, 0), (408, 0), (429, 1), (503, 1)]
)
def test_a_failure_that_may_pass_is_tried_again_after_the_server_s_pause(
    url: str, server: FileServer, tmp_path: Path, status: int, seconds: int
) -> None:
    server.once[PATH] = [(status, {"Retry-After": "0"}), (status, {"Retry-After": str(seconds)})]
    started = time.monotonic()
    assert arrive(url, tmp_path).sha256 == SHA256
    assert seconds <= time.monotonic() - started < seconds + 2
    assert len(server.gets(PATH)) == 3


def test_a_server_that_asks_for_too_long_a_pause_is_reported(url: str, server: FileServer, tmp_path: Path) -> None:
    server.once[PATH] = [(429, {"Retry-After": "3600"})]
    error = refusal(url, tmp_path, patience=QUICK)
    assert error.fact == f"'{url}' answers 429 Too Many Requests, and asks to wait 3600 s"
    assert error.fix == "wait that long, then run again; the download continues where it stopped"
    server.once[PATH] = [(503, {"Retry-After": "Fri, 31 Dec 2199 23:59:59 GMT"})]
    assert "and asks to wait" in refusal(url, tmp_path, patience=QUICK).fact


@pytest.mark.parametrize(
    "said",
    [
        "",
        "soon",
        "-5",
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "99999999999999999999",
        f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT",
        f"1 Jan 2026 0:0:0 -{'9' * 20}",
    ],
)
def test_an_invalid_pause_is_replaced_by_our_own(url: str, server: FileServer, tmp_path: Path, said: str) -> None:
    server.once[PATH] = [(503, {"Retry-After": said})]
    assert arrive(url, tmp_path).sha256 == SHA256


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501, 204, 304, 302])
def test_a_failure_that_will_not_pass_is_not_tried_again(
    url: str, server: FileServer, tmp_path: Path, status: int
) -> None:
    server.answers[PATH] = (status, {})
    assert f"' answers {status}" in refusal(url, tmp_path, patience=QUICK).fact
    assert len(server.gets(PATH)) == 1


def test_an_encoding_is_not_asked_for_and_an_encoded_body_is_refused(
    url: str, server: FileServer, tmp_path: Path
) -> None:
    packed = gzip.compress(DATA)
    server.files = dict.fromkeys((PATH, "/a.tar.gz"), packed)
    server.extra = {"Content-Encoding": "gzip"}
    error = refusal(url, tmp_path)
    assert error.fact == f"'{url}' arrived with the encoding 'gzip', not as it is"
    assert server.gets(PATH)[0].headers["accept-encoding"] == "identity"
    assert list(tmp_path.iterdir()) == []
    assert arrive(f"{server.address}/a.tar.gz", tmp_path / "..").path.read_bytes() == packed, "its own format"
    assert arrive(url, tmp_path, pin=hashlib.sha256(packed).hexdigest()).path.read_bytes() == packed
    (tmp_path / "whole").unlink()
    server.extra = {"Content-Encoding": "identity"}
    assert arrive(url, tmp_path).is_whole


def test_a_page_is_refused_with_the_address_of_the_file_and_nothing_is_kept(server: FileServer, tmp_path: Path) -> None:
    page = b"<!DOCTYPE html><html></html>"
    path = "/owner/name/blob/main/x.nemo"
    server.files[path] = page
    server.extra = {"Content-Type": "text/html; charset=utf-8"}
    error = refusal(f"{server.address}{path}", tmp_path)
    assert error.fact == f"'{server.address}{path}' is a web page, not the file"
    assert "/resolve/ instead of /blob/" in error.fix
    digest = hashlib.sha256(page).hexdigest()
    assert error.fix.endswith(f"pin its sha256 if these bytes are right: {digest}")
    assert list(tmp_path.iterdir()) == []
    assert arrive(f"{server.address}{path}", tmp_path, pin=digest).path.read_bytes() == page


def test_a_pointer_of_git_lfs_is_named(server: FileServer, tmp_path: Path) -> None:
    server.files["/x.nemo?token=secret"] = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n"
    error = refusal(f"{server.address}/x.nemo?token=secret", tmp_path, pin="0" * 64)
    assert error.fact == f"'{server.address}/x.nemo?token=***' is a Git LFS pointer, not the file it points to"


def test_no_error_of_a_download_shows_a_secret(server: FileServer, tmp_path: Path) -> None:
    for plan in ("404", "cut", "bad", "500"):
        server.answers = {"/x.nemo?token=secret": (int(plan), {"Retry-After": "0"})} if plan.isdigit() else {}
        server.raw = {}
        if plan == "cut":
            server.raw["/x.nemo?token=secret"] = lambda write: write(head("Content-Length: 50") + b"abc")
        if plan == "bad":
            server.raw["/x.nemo?token=secret"] = lambda write: write(b"no HTTP: token=sec\x1bret\r\n\r\n")
        error = refusal(f"{server.address}/x.nemo?token=secret#secret", tmp_path)
        assert f"'{server.address}/x.nemo?token=***#***' " in error.fact
        assert "secret" not in str(error)
        assert "\x1b" not in str(error)


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("/a b/ü.bin", "/a%20b/%C3%BC.bin"),
        ("/a%20b/100%.bin", "/a%20b/100%25.bin"),
        ("/x.bin?name=a b&c=ü#part", "/x.bin?name=a%20b&c=%C3%BC"),
        ("", "/"),
        ("?x=1", "/?x=1"),
        ("/a'b(c)[d].bin", "/a'b(c)[d].bin"),
    ],
)
def test_an_address_is_sent_in_ascii(server: FileServer, tmp_path: Path, said: str, asked: str) -> None:
    server.files[asked] = b"data"
    assert arrive(server.address + said, tmp_path).path.read_bytes() == b"data"
