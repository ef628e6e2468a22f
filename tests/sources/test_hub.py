from __future__ import annotations

import hashlib
from pathlib import Path

import huggingface_hub.constants
import pytest

from artifacts.errors import StoreError
from artifacts.sources.download import DownloadedFile, Patience
from artifacts.sources.hub import download_hf
from small_server import COMMIT, FileServer

DATA = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(DATA).hexdigest()
BRANCH, AT_COMMIT = (f"/owner/name/resolve/{revision}/sub/notes.bin" for revision in ("main", COMMIT))
QUICK = Patience(least_bytes=1000, seconds=5.0, tries=5, pause_seconds=0.01)


@pytest.fixture(autouse=True)
def hub(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A server that acts as the hub, with a file in a repository."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.files[BRANCH] = server.files[AT_COMMIT] = DATA
    return server


def arrive(folder: Path, pin: str | None = None, repository: str = "owner/name@main") -> DownloadedFile:
    """Download the file."""
    return download_hf(repository, "sub/notes.bin", folder, lambda *_: None, pin, QUICK)


def refusal(folder: Path, pin: str | None = None, repository: str = "owner/name@main") -> StoreError:
    """Return the error of a download that fails."""
    with pytest.raises(StoreError) as caught:
        arrive(folder, pin, repository)
    assert "\n" not in caught.value.fact + caught.value.fix
    assert "secret" not in str(caught.value)
    return caught.value


def linked(hub: FileServer, target: str, *, size: int | None = None, sha256: str = "x") -> None:
    """Make the file a large one, which has another address."""
    headers = {"Location": target, "X-Repo-Commit": COMMIT, "X-Linked-Etag": f'"{sha256}"'}
    headers |= {"X-Linked-Size": str(size)} if size is not None else {}
    hub.answers[BRANCH] = hub.answers[AT_COMMIT] = (302, headers)


def test_the_file_of_the_commit_is_fetched_although_the_branch_moves(hub: FileServer, tmp_path: Path) -> None:
    hub.moves = {BRANCH: DATA[::-1]}
    arrived = arrive(tmp_path)
    assert (arrived.path.read_bytes(), arrived.sha256, arrived.is_whole) == (DATA, SHA256, True)
    assert hub.files[BRANCH] == DATA[::-1], "it moved after the first request"
    asked = [(one.method, one.path) for one in hub.asked if "/resolve/" in one.path]
    assert asked == [("HEAD", BRANCH), ("GET", AT_COMMIT)]


def test_each_try_keeps_to_the_commit_of_the_first(hub: FileServer, tmp_path: Path) -> None:
    hub.break_after = [200_000, 100_000]
    hub.moves = {BRANCH: DATA[::-1]}
    assert arrive(tmp_path).sha256 == SHA256
    assert [one.path for one in hub.asked if "/resolve/" in one.path] == [BRANCH, *[AT_COMMIT] * 5]
    assert [one.range for one in hub.gets(AT_COMMIT)] == [None, "bytes=200000-", "bytes=300000-"]


def test_a_renamed_repository_is_followed_to_the_commit(hub: FileServer, tmp_path: Path) -> None:
    new = {revision: f"/owner/new/resolve/{revision}/sub/notes.bin" for revision in ("main", COMMIT)}
    hub.answers[BRANCH] = (307, {"Location": new["main"]})
    hub.files |= {new["main"]: DATA, new[COMMIT]: DATA}
    assert arrive(tmp_path).sha256 == SHA256
    assert [one.path for one in hub.asked if one.method == "GET"] == [new[COMMIT]]
    assert {one.token for one in hub.asked if "/resolve/" in one.path} == {"Bearer hf_secret"}


def test_the_token_is_shown_to_no_host_behind_the_hub(
    hub: FileServer, other_server: FileServer, tmp_path: Path
) -> None:
    other_server.files["/signed?key=secret"] = DATA
    linked(hub, f"{other_server.address}/signed?key=secret", size=len(DATA), sha256=SHA256)
    assert arrive(tmp_path).sha256 == SHA256
    assert [one.token for one in other_server.asked] == [None]
    assert {one.token for one in hub.asked if "/resolve/" in one.path} == {"Bearer hf_secret"}


def test_a_redirect_that_only_the_get_meets_takes_no_token_along(
    hub: FileServer, other_server: FileServer, tmp_path: Path
) -> None:
    other_server.files["/b"] = DATA
    hub.answers[AT_COMMIT] = (302, {"Location": f"{other_server.address}/b"})
    assert arrive(tmp_path).sha256 == SHA256
    assert [one.token for one in other_server.asked] == [None]


def test_a_download_is_compared_with_the_hub_s_sha256_and_size(
    hub: FileServer, other_server: FileServer, tmp_path: Path
) -> None:
    url = f"{other_server.address}/signed?key=secret"
    other_server.files["/signed?key=secret"] = DATA
    linked(hub, url, size=len(DATA), sha256="0" * 64)
    error = refusal(tmp_path)
    assert error.fact == f"'sub/notes.bin' of 'owner/name@main' has sha256 {SHA256}, and the hub says {'0' * 64}"
    assert list(tmp_path.iterdir()) == []
    linked(hub, url, size=len(DATA) + 1, sha256=SHA256)
    assert refusal(tmp_path).fact.endswith(f" has {len(DATA)} bytes, and the hub says {len(DATA) + 1}")
    linked(hub, url, size=len(DATA) - 1, sha256=SHA256)
    assert refusal(tmp_path).fact.endswith(f" has {len(DATA)} bytes, and the hub says {len(DATA) - 1}")
    assert arrive(tmp_path, pin=SHA256).sha256 == SHA256, "the recipe's own pin is enough"


def test_a_length_that_only_the_hub_says_is_compared(hub: FileServer, other_server: FileServer, tmp_path: Path) -> None:
    other_server.raw["/b"] = lambda write: write(b"HTTP/1.1 200 OK\r\n\r\n" + DATA[:1000])
    linked(hub, f"{other_server.address}/b", size=len(DATA))
    assert "broke off after 1000 of 512000 bytes" in refusal(tmp_path).fact
    other_server.raw["/b"] = lambda write: write(b"HTTP/1.1 200 OK\r\n\r\n" + DATA)
    assert arrive(tmp_path).is_whole
    (tmp_path / "whole").unlink()
    other_server.raw["/b"] = lambda write: write(b"HTTP/1.1 200 OK\r\n\r\n" + DATA + b"more" * 1_000_000)
    assert "the hub says 512000" in refusal(tmp_path).fact


def test_a_whole_file_of_another_version_is_fetched_anew(hub: FileServer, tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(b"earlier")
    assert arrive(tmp_path).path.read_bytes() == DATA


def test_a_part_of_another_version_is_not_continued(hub: FileServer, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(bytes(1000))
    (tmp_path / "validator").write_text('{"validator": "\\"x\\"", "total": 5000}')
    assert arrive(tmp_path).path.read_bytes() == DATA
    assert [one.range for one in hub.gets(AT_COMMIT)] == [None]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_tried_again(hub: FileServer, tmp_path: Path, status: int) -> None:
    hub.once[BRANCH] = [(status, {"Retry-After": "0"})] * 2
    hub.once[AT_COMMIT] = [(status, {"Retry-After": "0"})]
    assert arrive(tmp_path).sha256 == SHA256
    hub.once[BRANCH] = [(429, {"Retry-After": "4000"})]
    (tmp_path / "whole").unlink()
    assert refusal(tmp_path).fact.endswith(", and asks to wait 4000 s")


def test_a_server_that_is_not_the_hub_is_reported(hub: FileServer, tmp_path: Path) -> None:
    hub.extra = {"X-Repo-Commit": "", "Content-Type": "text/html"}
    hub.files[BRANCH] = b"<html>sign in to this network</html>"
    error = refusal(tmp_path)
    assert error.fact == "'sub/notes.bin' of 'owner/name@main' cannot be fetched: the answer names no commit"
    assert error.fix == "check HF_ENDPOINT and the proxy: the server that answers is not the hub"


@pytest.mark.parametrize("name", ["a--b/c", "../..", "a/b.git", "-a/b"])
def test_a_name_that_the_hub_does_not_allow_is_reported(tmp_path: Path, name: str) -> None:
    assert refusal(tmp_path, repository=f"{name}@main").fact.startswith(f"'{name}' is not a repository name: ")


def test_nothing_is_tried_in_offline_mode(hub: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert refusal(tmp_path).fix == "unset HF_HUB_OFFLINE"
    assert hub.asked == []
