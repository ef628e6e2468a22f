"""Sources on this disk, and their pins. Downloads are tested in end_to_end/test_sources.py."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

import pytest

from artifacts.errors import StoreError
from artifacts.recipe.recipe import LoadedRecipe, NamedSource, load_recipe
from artifacts.sources.find import ResolvedSource, find_source, look_for_source, partial_folder
from artifacts.sources.pins import lock_source, pinned_digest
from artifacts.store.digest_memory import DigestMemory
from small_server import FileServer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    Path("recipes/speech").mkdir(parents=True)
    Path("recipes/model.nemo").write_bytes(b"model")
    Path("pipeline.yaml").touch()
    return tmp_path


def load(sources: str) -> LoadedRecipe:
    """Load a recipe with these sources."""
    Path("recipes/x.yaml").write_text(f"sources: {sources}\ntargets: {{t: {{step: s}}}}\n")
    return load_recipe("x", Path("recipes/x.yaml"))


def find(loaded: LoadedRecipe, name: str) -> ResolvedSource:
    """Find a source, or fail as a build would."""
    return find_source(
        NamedSource(loaded, name), DigestMemory(Path("cache/m")), Path("cache/downloads"), lambda *_: None
    )


def look(loaded: LoadedRecipe, name: str) -> ResolvedSource | None:
    """Look for a source, and change nothing."""
    return look_for_source(NamedSource(loaded, name), DigestMemory(Path("cache/m")), Path("cache/downloads"))


def test_a_file_is_its_bytes_whatever_its_name() -> None:
    Path("recipes/other.nemo").write_bytes(b"model")
    loaded = load("{a: {file: model.nemo}, b: {file: other.nemo}}")
    assert find(loaded, "a").content == find(loaded, "b").content == hashlib.sha256(b"model").hexdigest()
    assert find(loaded, "a").path == Path("recipes/model.nemo").absolute()


def test_a_folder_is_its_files_with_their_names() -> None:
    loaded = load("{s: {folder: speech}}")
    Path("recipes/speech/sub").mkdir()
    Path("recipes/speech/sub/a.flac").write_bytes(b"a")
    first = find(loaded, "s")
    assert list(first.manifest.files) == ["sub/a.flac"]
    Path("recipes/speech/sub/a.flac").rename("recipes/speech/sub/b.flac")
    assert find(loaded, "s").content != first.content


def test_a_file_in_a_folder_that_no_digest_covers_is_refused() -> None:
    loaded = load("{s: {folder: speech}}")
    Path("elsewhere").mkdir()
    Path("recipes/speech/clips").symlink_to(Path("elsewhere").absolute())
    Path("recipes/speech/a.flac").write_bytes(b"a")
    with pytest.raises(StoreError, match="'recipes/speech/clips' is a link to a folder"):
        find(loaded, "s")
    Path("recipes/speech/clips").unlink()
    Path(os.fsdecode(b"recipes/speech/\xff")).write_bytes(b"a")
    with pytest.raises(StoreError, match=r"'\\udcff' is not a UTF-8 name"):
        find(loaded, "s")


def test_a_changed_source_differs_from_its_lock() -> None:
    loaded = load("{a: {file: model.nemo}}")
    content = find(loaded, "a").content
    assert look(loaded, "a") is None
    assert not Path("pipeline.lock.yaml").exists(), "neither looking nor finding locks what a step may yet refuse"
    lock_source(NamedSource(loaded, "a"), content)
    assert pinned_digest(NamedSource(loaded, "a")) == (content, Path("pipeline.lock.yaml"))
    assert look(loaded, "a") == find(loaded, "a")
    Path("recipes/model.nemo").write_bytes(b"other")
    for attempt in (find, look):
        with pytest.raises(StoreError) as caught:
            attempt(loaded, "a")
        assert caught.value.fact.startswith("recipes/x.yaml:1:11: sources.a: 'recipes/model.nemo' has sha256 ")
        assert caught.value.fact.endswith(f"pipeline.lock.yaml pins {content}")


@pytest.mark.parametrize(
    ("sources", "fact", "fix"),
    [
        ("{a: {file: none.nemo}}", "no file at 'recipes/none.nemo'", "put the file there"),
        ("{a: {file: none.nemo, hint: ask}}", "no file at 'recipes/none.nemo'", "ask"),
        ("{a: {file: speech}}", "no file at 'recipes/speech'", "put the file there"),
        ("{a: {folder: none}}", "no folder at 'recipes/none'", "put the folder there"),
        ("{a: {folder: model.nemo}}", "no folder at 'recipes/model.nemo'", "put the folder there"),
        ("{a: {folder: speech}}", "the folder 'recipes/speech' is empty", "put its files there"),
    ],
)
def test_a_missing_source_is_reported_with_its_hint(sources: str, fact: str, fix: str) -> None:
    loaded = load(sources)
    for attempt in (find, look):
        with pytest.raises(StoreError) as caught:
            attempt(loaded, "a")
        assert caught.value.fact == f"recipes/x.yaml:1:11: sources.a: {fact}"
        assert caught.value.fix == fix
    assert not Path("pipeline.lock.yaml").exists()


@pytest.mark.parametrize("kind", ["pipe", "device", "socket", "nothing"])
def test_a_file_that_is_not_regular_is_refused_alone_and_in_a_folder(kind: str) -> None:
    path = Path("recipes/speech/odd")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nowhere")
    for sources, fact in (
        ("{a: {file: speech/odd}}", "no file at 'recipes/speech/odd'"),
        ("{a: {folder: speech}}", "'recipes/speech/odd' is not a regular file"),
    ):
        with pytest.raises(StoreError) as caught:
            find(load(sources), "a")
        assert caught.value.fact == f"recipes/x.yaml:1:11: sources.a: {fact}"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/", "download"),
        ("", "download"),
        ("?id=5", "download"),
        ("/a/..", "download"),
        ("/a/.", "download"),
        ("/a%2F..%2Fb.txt", "a%2F..%2Fb.txt"),
        ("/..%2f..%2fx", "..%2f..%2fx"),
        ("/a/notes.txt/", "notes.txt"),
        ("/a\\\\..\\\\b.txt", "a_.._b.txt"),
        ("/" + "long" * 75 + ".nemo", "long" * 29 + "lon" + ".nemo"),
        ("/" + "ü" * 200 + ".nemo", "ü" * 59 + ".nemo"),
        ("/notes." + "x" * 300, "notes." + "x" * 134),
        ("/a b ü.txt", "a b ü.txt"),
        ("/.hidden", ".hidden"),
    ],
)
def test_a_download_has_a_name_that_is_short_enough_for_every_disk(server: FileServer, path: str, name: str) -> None:
    server.any_path = b"data"
    loaded = load(f'{{a: {{url: "{server.address}{path}"}}}}')
    found = find(loaded, "a")
    assert (found.path.name, found.path.read_bytes()) == (name, b"data")
    assert look(loaded, "a") == found
    assert [file.name for file in Path("cache/downloads").glob("*/*") if file.is_file()] == [name]


def test_each_address_has_its_own_folder_for_a_partial_download() -> None:
    loaded = load(
        "{a: {url: 'https://host/x'}, b: {url: 'https://host/y'}, c: {hf: o/n@r, file: x}, d: {hf: o/n@q, file: x}}"
    )
    assert len({partial_folder(source, Path()) for source in loaded.recipe.sources.values()}) == 4


def test_an_untouched_file_is_not_read_twice() -> None:
    loaded = load("{a: {file: model.nemo}}")
    time.sleep(0.15)
    find(loaded, "a")
    memory = DigestMemory(Path("cache/m"))
    read: list[Path] = []
    memory.remember(Path("recipes/model.nemo"), "sha256", read.append)
    assert not read


def test_a_memory_that_is_wrong_about_a_source_is_corrected_before_it_is_refused() -> None:
    loaded = load("{a: {file: model.nemo}, s: {folder: speech}}")
    Path("recipes/speech/a.flac").write_bytes(b"a")
    for name in "as":
        lock_source(NamedSource(loaded, name), find(loaded, name).content)
    time.sleep(0.15)
    for path in (Path("recipes/model.nemo"), Path("recipes/speech/a.flac")):
        DigestMemory(Path("cache/m")).note(path, "0" * 64)
    for name in "as":
        assert look(loaded, name) == find(loaded, name) is not None
    Path("recipes/model.nemo").write_bytes(b"other")
    with pytest.raises(StoreError, match="has sha256"):
        find(loaded, "a")
