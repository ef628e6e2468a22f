from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.download import download_url
from artifacts.errors import StoreError
from small_server import FileServer

DATA = bytes(range(256)) * 20_000
PATH = "/a/model.bin"


@pytest.fixture
def url(server: FileServer) -> str:
    """The address of some data."""
    server.files[PATH] = DATA
    return server.address + PATH


def quiet(_done: int, _total: int) -> None:
    """Nobody listens."""


def test_a_file_arrives_whole_and_says_how_far_it_is(url: str, tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    assert download_url(url, tmp_path, lambda done, total: said.append((done, total))).read_bytes() == DATA
    assert said[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in said] == sorted(done for done, _ in said)
    assert len(said) > 3


def test_what_arrived_is_kept_and_continued_through_any_number_of_breaks(
    url: str, server: FileServer, tmp_path: Path
) -> None:
    server.break_after = [1_000_000, 500_000, 0, 2_000_000]
    for arrived in (1_000_000, 1_500_000, 1_500_000, 3_500_000):
        with pytest.raises(StoreError, match=f"broke off after {arrived} of {len(DATA)} bytes"):
            download_url(url, tmp_path, quiet)
    assert download_url(url, tmp_path, quiet).read_bytes() == DATA
    asked = [one.range for one in server.gets(PATH)]
    assert asked == [None, "bytes=1000000-", "bytes=1500000-", "bytes=1500000-", "bytes=3500000-"]


def test_a_file_that_changed_on_the_server_is_begun_anew(url: str, server: FileServer, tmp_path: Path) -> None:
    server.break_after = [1_000_000]
    with pytest.raises(StoreError):
        download_url(url, tmp_path, quiet)
    server.files[PATH] = DATA[::-1]
    assert download_url(url, tmp_path, quiet).read_bytes() == DATA[::-1]


def test_a_part_that_is_longer_than_the_file_is_begun_anew(url: str, server: FileServer, tmp_path: Path) -> None:
    server.break_after = [1_000_000]
    with pytest.raises(StoreError):
        download_url(url, tmp_path, quiet)
    (tmp_path / "part").write_bytes(bytes(len(DATA) + 5))
    assert download_url(url, tmp_path, quiet).read_bytes() == DATA


def test_a_part_of_which_nothing_is_known_is_not_continued(url: str, server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"of another file")
    assert download_url(url, tmp_path, quiet).read_bytes() == DATA
    assert server.gets(PATH)[0].range is None


def test_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be fetched"):
        download_url("http://127.0.0.1:9/x", tmp_path, quiet)
    with pytest.raises(StoreError, match="cannot be fetched"):
        download_url("http://no such host/x", tmp_path, quiet)
