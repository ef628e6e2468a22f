"""A revision of the hub is a moving name: the lock file notes what it stood for, and a command says what has moved."""

from __future__ import annotations

import hashlib

import pytest

from small_project import Ended, Project
from small_server import COMMIT, FileServer

OLD, NEW = b"old bytes" * 1000, b"new bytes" * 1000
PATHS = [f"/owner/name/resolve/{revision}/sub/notes.bin" for revision in ("main", COMMIT)]


def ask(project: Project, server: FileServer, *words: str) -> Ended:
    environment = {"HF_ENDPOINT": server.address, "HF_HOME": str(project.root / "home"), "HF_TOKEN": "hf_secret"}
    return project.doit(*words, environment=environment)


@pytest.fixture
def locked(project: Project, server: FileServer) -> Project:
    """A project whose source of the hub is locked to the old bytes."""
    project.recipe(
        "sources:\n  notes: {hf: owner/name@main, file: sub/notes.bin}\ntargets:\n  first: {step: write_text}\n"
    )
    server.files |= dict.fromkeys(PATHS, OLD)
    assert ask(project, server, "small:notes").code == 0
    return project


def test_a_source_is_up_to_date_until_the_revision_names_other_bytes(locked: Project, server: FileServer) -> None:
    address = "hf:owner/name@main/sub/notes.bin"
    ended = ask(locked, server, "outdated")
    assert ended.out == f"small:notes ({address}) is up to date\n1 source of the hub, none has changed\n", ended.err
    server.files |= dict.fromkeys(PATHS, NEW)
    server.extra |= {"X-Repo-Commit": "f" * 40}
    before = locked.files()
    ended = ask(locked, server, "outdated")
    assert f"small:notes ({address}) has moved: {COMMIT[:12]} -> {'f' * 12}\n" in ended.out, ended.out + ended.err
    assert "\n1 source of the hub, 1 has changed\n" in ended.out
    assert ended.out.endswith("to build from what the hub has now: doit pin small:notes\n")
    assert locked.files() == before
    assert ask(locked, server, "small:notes").out.startswith("1 target, unchanged")
    downloads = locked.cache / "downloads" / hashlib.sha256(OLD).hexdigest()
    assert downloads.is_dir()


def test_a_hub_that_does_not_answer_is_an_error_in_two_lines(locked: Project, server: FileServer) -> None:
    server.files.clear()
    ended = ask(locked, server, "outdated")
    assert ended.code == 1
    assert ended.out == "1 source of the hub, none has changed, 1 not known\n"
    assert len(ended.err.splitlines()) == 2
    assert "\n  fix: " in ended.err


def test_a_project_without_sources_of_the_hub_has_none_to_ask(project: Project, server: FileServer) -> None:
    assert ask(project, server, "outdated").out == "no recipe has a source of the hub\n"
    assert ask(project, server, "outdated", "first").out == "none of these is a source of the hub\n"
