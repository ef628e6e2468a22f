"""A source that is replaced on purpose: it is refused, pinned anew, and built from."""

from __future__ import annotations

import hashlib
import re

import pytest

from small_project import Project
from small_server import COMMIT, FileServer

OLD, NEW = b"some notes\n", b"other notes\n"


@pytest.fixture
def reading(project: Project) -> Project:
    """A project whose first target reads the source."""
    (project.root / "recipes" / "notes").mkdir()
    (project.root / "recipes" / "notes" / "text.txt").write_bytes(OLD)
    project.recipe(
        "sources:\n  notes: {folder: notes}\ntargets:\n  first: {step: change_text, inputs: {text: notes}}\n"
    )
    assert project.doit().code == 0
    return project


def test_the_fix_of_the_error_is_the_command_and_it_works(reading: Project) -> None:
    (reading.root / "recipes" / "notes" / "text.txt").write_bytes(NEW)
    refused = reading.doit()
    assert refused.code == 1
    found = re.search(r"has sha256 (\w{64}), .* pins (\w{64})\n  fix: .*right: doit (pin small:notes)\n", refused.err)
    assert found is not None, refused.err
    new, old, command = found.groups()
    before = (reading.root / "pipeline.lock.yaml").read_text()
    ended = reading.doit(*command.split())
    assert (ended.code, ended.err) == (0, "")
    told = f"small:notes (recipes/notes)\n  before: sha256 {old}\n  now:    sha256 {new}\n"
    assert ended.out == f"{told}commit pipeline.lock.yaml; `doit plan` shows what the next run builds\n"
    assert (reading.root / "pipeline.lock.yaml").read_text() == before.replace(old, new)
    assert re.search(r"^build +small:first", reading.doit("plan").out, flags=re.MULTILINE)
    assert reading.doit().code == 0
    assert reading.text("first") == "other notes\n"


def test_a_pin_in_the_recipe_is_not_touched(reading: Project) -> None:
    reading.replace("{folder: notes}", f"{{folder: notes, sha256: '{'0' * 64}'}}")
    before = reading.files()
    ended = reading.doit("pin", "small:notes")
    assert ended.code == 3
    assert re.fullmatch(
        r"ERROR: recipes/small.yaml:2:34: sources.notes.sha256: the recipe pins this source itself\n"
        r"  fix: write there: sha256: \w{64}\n",
        ended.err,
    )
    assert reading.files() == before


def test_a_revision_of_the_hub_that_moved_is_pinned_to_what_it_names_now(project: Project, server: FileServer) -> None:
    paths = [f"/owner/name/resolve/{revision}/sub/notes.bin" for revision in ("main", COMMIT, "f" * 40)]
    environment = {"HF_ENDPOINT": server.address, "HF_HOME": str(project.root / "home"), "HF_TOKEN": "hf_secret"}
    project.recipe(
        "sources:\n  notes: {hf: owner/name@main, file: sub/notes.bin}\ntargets:\n  first: {step: write_text}\n"
    )
    server.files |= dict.fromkeys(paths, OLD)
    assert project.doit("small:notes", environment=environment).code == 0
    server.files |= dict.fromkeys(paths, NEW)
    server.extra |= {"X-Repo-Commit": "f" * 40}
    old, new = (hashlib.sha256(data).hexdigest() for data in (OLD, NEW))
    ended = project.doit("pin", "small:notes", environment=environment)
    assert f"\n  before: sha256 {old}\n  now:    sha256 {new}\n" in ended.out, ended.err
    assert f"commit: {'f' * 40}\n" in (project.root / "pipeline.lock.yaml").read_text()
    assert project.doit("outdated", environment=environment).out.startswith("small:notes (hf:owner/name@main/sub/notes")
    assert project.doit("small:notes", environment=environment).code == 0
    assert (project.cache / "downloads" / new / "notes.bin").read_bytes() == NEW
