from __future__ import annotations

import time

import pytest

from artifacts.errors import StoreError
from artifacts.web_address import shown_url, url_fault, without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/a/b.nemo", "https://host/a/b.nemo"),
        ("https://user:secret@host:8080/a", "https://host:8080/a"),
        ("https://secret@host/a", "https://host/a"),
        ("https://user:sec/ret@host/a", "https://host/a"),
        ("https://user:sec?ret@host/a", "https://host/a"),
        ("https://user:sec#ret@host/a", "https://host/a"),
        ("https://user:se@cret@host/a", "https://host/a"),
        ("https://user:secret@[::1]:80/a", "https://[::1]:80/a"),
        ("https://[::1]:80/a@b", "https://[::1]:80/a@b"),
        ("https://host/owner/name@main", "https://host/owner/name@main"),
        ("https://host/a?token=secret", "https://host/a?token=***"),
        ("https://host/a?file=x&token=secret&download", "https://host/a?file=***&token=***&***"),
        ("https://host/a?token=secret;other=secret", "https://host/a?token=***&other=***"),
        ("https://host/a?secret", "https://host/a?***"),
        ("https://host/a?token=sec?ret#secret", "https://host/a?token=***#***"),
        ("https://host/a#access_token=secret", "https://host/a#***"),
        ("https://host?token=secret", "https://host?token=***"),
        ("https://host/a?", "https://host/a"),
        ("ftp://user:secret@host/a", "ftp://host/a"),
        ("https://", "https://"),
        ("no address", "no address"),
    ],
)
def test_an_address_is_shown_without_what_may_be_a_secret(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    assert shown_url(shown) == shown, "what is safe already stays as it is"


def test_addresses_in_a_text_are_shown_without_secrets_and_the_text_stays() -> None:
    text = (
        "see 'https://user:secret@host/a?token=sec\"ret', or (http://other/b?x=secret). It must begin with 'https://'"
    )
    assert without_secrets(text) == (
        "see 'https://host/a?token=***', or (http://other/b?x=***). It must begin with 'https://'"
    )
    started = time.monotonic()
    without_secrets("https://" + "'" * 50_000 + "x")
    without_secrets("a" * 50_000)
    assert time.monotonic() - started < 5


def test_an_error_shows_no_secret_whatever_text_it_quotes() -> None:
    error = StoreError("no file at 'https://user:secret@host/a?token=secret'", "see https://host/terms?model=5")
    assert str(error) == "no file at 'https://host/a?token=***'\n  fix: see https://host/terms?model=5"


@pytest.mark.parametrize(
    "url",
    [
        "https://host", "http://host:80/a", "https://host/ä b.nemo?x=ü", "https://bücher.example/a", "https://host./a",
        "https://[::1]:8080/a", "https://127.0.0.1/100%", "https://host/a@b:c", "https://under_score.example/",
    ],
)  # fmt: skip
def test_a_good_address_has_no_fault(url: str) -> None:
    assert url_fault(url) is None


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("ftp://host/secret", "must begin with 'https://'"),
        ("HTTPS://host/secret", "must begin with 'https://'"),
        (" https://host/secret", "must begin with 'https://'"),
        ("https://host/secret\n", "contains a control character"),
        ("https://host/sec\tret", "contains a control character"),
        ("https://host/secret\x7f", "contains a control character"),
        ("https://host/secret ", "ends with a space"),
        ("https://user:secret@host/a", "contains a user name or password"),
        ("https://secret@host/a", "contains a user name or password"),
        ("https://user:sec/ret@host/a", "contains a host or port that is malformed"),
        ("https://host:99999/secret", "contains a host or port that is malformed"),
        ("https://host:secret/a", "contains a host or port that is malformed"),
        ("https://[::1/secret", "contains a host or port that is malformed"),
        ("https://ho st/secret", "contains a host or port that is malformed"),
        ("https://host\\secret", "contains a host or port that is malformed"),
        ("https://a..b/secret", "contains a host or port that is malformed"),
        (f"https://{'a' * 64}.example/", "contains a host or port that is malformed"),
        ("https:///secret", "names no host"),
        ("https://:80/secret", "names no host"),
        ("https://?secret", "names no host"),
    ],
)
def test_a_bad_address_is_reported_without_being_quoted(url: str, fault: str) -> None:
    told = url_fault(url)
    assert told is not None
    assert told.startswith(fault)
    assert "secret" not in told
