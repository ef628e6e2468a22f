from __future__ import annotations

import errno
import fcntl
import hashlib
import re
import threading
import time
from pathlib import Path

import pytest
import yaml

from artifacts.errors import RecipeError, StoreError
from artifacts.recipe.recipe import LoadedRecipe, NamedSource, load_recipe
from artifacts.sources.pins import LOCK_FILE, lock_source, pinned_digest

CONTENT = hashlib.sha256(b"model").hexdigest()


pytestmark = pytest.mark.usefixtures("folder")


def load(sources: str) -> LoadedRecipe:
    """Load a recipe with these sources."""
    Path("recipes/x.yaml").write_text(f"sources: {sources}\ntargets: {{t: {{step: s}}}}\n")
    return load_recipe("x", Path("recipes/x.yaml"))


def test_a_source_that_was_locked_to_other_bytes_meanwhile_is_refused() -> None:
    loaded = load("{a: {file: model.nemo}}")
    lock_source(NamedSource(loaded, "a"), "1" * 64)
    with pytest.raises(
        StoreError, match=f"'recipes/model.nemo' has sha256 {'2' * 64}, pipeline.lock.yaml pins {'1' * 64}"
    ):
        lock_source(NamedSource(loaded, "a"), "2" * 64)
    assert pinned_digest(NamedSource(loaded, "a"))[0] == "1" * 64


def test_the_recipe_s_own_pin_needs_no_lock() -> None:
    digest = CONTENT
    loaded = load(f"{{a: {{file: model.nemo, sha256: {digest}}}}}")
    lock_source(NamedSource(loaded, "a"), CONTENT)
    assert pinned_digest(NamedSource(loaded, "a")) == (digest, Path("recipes/x.yaml"))
    assert not Path("pipeline.lock.yaml").exists()


def test_a_lock_file_is_read_once_for_all_its_sources_and_anew_when_it_is_replaced() -> None:
    digest = CONTENT
    names = [f"s{number}" for number in range(300)]
    loaded = load(f"{{{', '.join(f'{name}: {{file: {name}.nemo}}' for name in names)}}}")
    for name in names[:3]:
        lock_source(NamedSource(loaded, name), digest)
        assert pinned_digest(NamedSource(loaded, name))[0] == digest
    pins = "".join(f"  recipes/{name}.nemo: {{sha256: {digest}}}\n" for name in names)
    LOCK_FILE.write_text(f"sources:\n{pins}")
    began = time.monotonic()
    assert all(pinned_digest(NamedSource(loaded, name))[0] == digest for name in names)
    assert time.monotonic() - began < 5  # to read it for each source takes a minute


def test_sources_that_are_used_at_once_are_all_locked() -> None:
    names = [f"s{index}" for index in range(8)]
    for name in names:
        Path(f"recipes/{name}.nemo").write_text(name)
    loaded = load(f"{{{', '.join(f'{name}: {{file: {name}.nemo}}' for name in names)}}}")
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    threads = [threading.Thread(target=lock_source, args=(NamedSource(loaded, name), digests[name])) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: pinned_digest(NamedSource(loaded, name))[0] for name in names} == digests


def test_the_fix_for_a_source_that_cannot_be_locked_is_a_pin_in_the_recipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def flock(_file: object, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    loaded = load("{a: {file: model.nemo}}")
    content = CONTENT
    monkeypatch.setattr(fcntl, "flock", flock)  # no file system here is without locks
    with pytest.raises(StoreError) as caught:
        lock_source(NamedSource(loaded, "a"), content)
    assert caught.value.fact == f"files in '{Path.cwd()}' cannot be locked: No locks available"
    assert caught.value.fix == f"pin the source in the recipe: write 'sha256: {content}' under sources.a"
    pinned = load(f"{{a: {{file: model.nemo, sha256: {content}}}}}")
    lock_source(NamedSource(pinned, "a"), content)


@pytest.mark.parametrize("lock", ["sources: [a]\n", "sources: {a: {sha256: 12}}\n", "a: b\n", "{", "sources: {a: }\n"])
def test_a_malformed_lock_file_is_reported(lock: str) -> None:
    loaded = load("{a: {file: model.nemo}}")
    Path("pipeline.lock.yaml").write_text(lock)
    with pytest.raises(RecipeError, match=r"pipeline.lock.yaml:\d+:\d+: "):
        pinned_digest(NamedSource(loaded, "a"))


def test_the_lock_file_names_a_source_by_its_address_without_secrets() -> None:
    sources = {
        "a": "{file: model.nemo}", "b": "{file: ./model.nemo}", "c": "{hf: owner/name@main, file: sub/x.nemo}",
        "d": "{url: 'https://host/x.nemo?token=secret'}",
    }  # fmt: skip
    loaded = load("{" + ", ".join(f"{name}: {source}" for name, source in sources.items()) + "}")
    for name in ("a", "c", "d"):
        lock_source(NamedSource(loaded, name), CONTENT)
    hub, url, file = yaml.safe_load(LOCK_FILE.read_text())["sources"]
    assert (hub, file) == ("hf:owner/name@main/sub/x.nemo", "recipes/model.nemo")
    assert re.fullmatch(r"https://host/x.nemo\?token=\*\*\* \([0-9a-f]{12}\)", url)
    assert pinned_digest(NamedSource(loaded, "b"))[0] == CONTENT, "two names of one file share its pin"
    for source in ("{file: other.nemo}", "{url: 'https://host/x.nemo?token=other'}"):
        moved = load(f"{{a: {source}}}")
        assert pinned_digest(NamedSource(moved, "a"))[0] is None, "another address needs a pin of its own"
