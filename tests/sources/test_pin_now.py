"""A source is pinned to what is there now: hashed, asked of the hub, or fetched."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from artifacts.errors import ArtifactsError
from artifacts.recipe.recipe import NamedSource, load_recipe
from artifacts.sources.find import MissingSourceError
from artifacts.sources.pin_now import NewPin, pin_now
from artifacts.sources.pins import locked_commit, pinned_digest
from artifacts.store.digest_memory import DigestMemory
from small_server import COMMIT, FileServer

OLD, NEW = (hashlib.sha256(data).hexdigest() for data in (b"model", b"trained model"))
HUB = "{hf: owner/name@main, file: sub/notes.bin}"
HUB_PATHS = [f"/owner/name/resolve/{revision}/sub/notes.bin" for revision in ("main", COMMIT)]


pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def hub(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A server that acts as the hub."""
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    return server


def source(declared: str) -> NamedSource:
    """A source of a recipe with this declaration."""
    Path("recipes/x.yaml").write_text(f"sources: {{a: {declared}}}\ntargets: {{t: {{step: s}}}}\n")
    return NamedSource(load_recipe("x", Path("recipes/x.yaml")), "a")


def pin(named: NamedSource) -> NewPin:
    """Pin it, in silence."""
    return pin_now(named, DigestMemory(Path("cache/m")), Path("cache/downloads"), lambda *_: None)


def test_a_file_is_pinned_to_its_bytes_and_again_to_others() -> None:
    named = source("{file: model.nemo}")
    assert pin(named) == NewPin(OLD, None)
    assert pin(named) == NewPin(OLD, OLD)
    Path("recipes/model.nemo").write_bytes(b"trained model")
    assert pin(named) == NewPin(NEW, OLD)
    assert pinned_digest(named) == (NEW, Path("pipeline.lock.yaml"))


def test_bytes_that_the_memory_of_digests_is_wrong_about_are_read() -> None:
    named = source("{file: model.nemo}")
    DigestMemory(Path("cache/m")).note(Path("recipes/model.nemo"), "0" * 64)
    assert pin(named).sha256 == OLD


def test_a_source_that_its_recipe_pins_is_refused_with_the_line_to_edit() -> None:
    assert pin(source(f"{{file: model.nemo, sha256: {OLD}}}")) == NewPin(OLD, OLD)
    for declared, new in (("file: model.nemo", f"sha256: {OLD}"), ("url: 'http://h/x'", "the sha256 of the new file")):
        with pytest.raises(ArtifactsError) as caught:
            pin(source(f"{{{declared}, sha256: {NEW}}}"))
        column = len(f"sources: {{a: {{{declared}, sha256: ") + 1
        fact = f"recipes/x.yaml:1:{column}: sources.a.sha256: the recipe pins this source itself"
        assert (caught.value.fact, caught.value.fix) == (fact, f"write there: {new}")
    assert not Path("pipeline.lock.yaml").exists()


def test_a_source_that_is_missing_keeps_its_pin() -> None:
    named = source("{file: model.nemo, hint: train it}")
    pin(named)
    Path("recipes/model.nemo").unlink()
    with pytest.raises(MissingSourceError, match=r"no file at 'recipes/model.nemo'\n  fix: train it"):
        pin(named)
    assert pinned_digest(named)[0] == OLD


def test_a_file_of_the_hub_is_pinned_by_what_the_hub_says_and_is_not_fetched(
    hub: FileServer,
) -> None:
    named = source(HUB)
    hub.files |= dict.fromkeys(HUB_PATHS, b"model")
    assert pin(named) == NewPin(OLD, None)
    hub.files |= dict.fromkeys(HUB_PATHS, b"trained model")
    assert pin(named) == NewPin(NEW, OLD)
    assert locked_commit(named) == COMMIT
    assert not any(hub.gets(path) for path in HUB_PATHS)


def test_a_file_of_the_hub_without_a_sha256_is_fetched(hub: FileServer) -> None:
    hub.files |= dict.fromkeys(HUB_PATHS, b"model")
    hub.extra = {"ETag": '"0123"'}
    assert pin(source(HUB)) == NewPin(OLD, None)
    assert Path(f"cache/downloads/{OLD}/notes.bin").read_bytes() == b"model"


def test_a_url_is_fetched_again_whatever_a_killed_run_left(server: FileServer) -> None:
    named = source(f"{{url: '{server.address}/model.bin'}}")
    server.files["/model.bin"] = b"model"
    assert pin(named) == NewPin(OLD, None)
    server.files["/model.bin"] = b"trained model"
    [partial] = [path for path in Path("cache/downloads/partial").glob("*") if path.is_dir()]
    (partial / "whole").write_bytes(b"model")
    assert pin(named) == NewPin(NEW, OLD)
    assert Path(f"cache/downloads/{NEW}/model.bin").read_bytes() == b"trained model"
