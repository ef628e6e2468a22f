"""What arrives from servers that are not in order, what is shown of addresses, and what is left behind."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from small_project import Project
from small_server import FileServer

TEXT = b"a text to the end\n"
STUMP = TEXT[:6]
SECRET = "s3cr3t"


def use(project: Project, source: str, *, is_read: bool = True) -> None:
    """Let the project have one source, and a step that reads it."""
    target = "{step: read_text, inputs: {text: notes}}" if is_read else "{step: write_text}"
    project.recipe(f"sources:\n  notes: {{{source}}}\ntargets:\n  first: {target}\n")


def without_length(body: bytes) -> bytes:
    """An answer whose end is the connection's."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + body


def test_a_body_without_a_length_is_told_and_locked_only_when_a_step_could_read_it(
    project: Project, server: FileServer
) -> None:
    use(project, f"url: '{server.address}/notes.txt?key={SECRET}'")
    lock = project.root / "pipeline.lock.yaml"
    body = [STUMP]
    server.raw[f"/notes.txt?key={SECRET}"] = lambda write: write(without_length(body[0]))
    ended = project.doit("first")
    assert ended.code == 1
    told = (
        "WARNING: recipes/small.yaml:2:3: sources.notes: the server does not say the length of "
        f"'{server.address}/notes.txt?key=***': it may be cut off after 6 bytes; it is locked once a step has read it\n"
    )
    assert ended.err == told + "small:first: notes.txt: the text has no end\n  fix: give the whole text\n"
    assert not lock.exists()
    body[0] = TEXT
    ended = project.doit("first")
    assert (ended.code, project.text("first")) == (0, TEXT.decode()), ended.err
    assert hashlib.sha256(TEXT).hexdigest() in lock.read_text()
    assert "all unchanged" in project.doit().out
    assert len(server.asked) == 2


def test_a_body_without_a_length_that_no_step_reads_is_not_locked(project: Project, server: FileServer) -> None:
    use(project, f"url: '{server.address}/notes.txt'", is_read=False)
    server.raw["/notes.txt"] = lambda write: write(without_length(STUMP))
    assert project.doit("small:notes").code == 0
    assert not (project.root / "pipeline.lock.yaml").exists()


def test_a_body_without_a_length_is_taken_if_it_is_what_is_pinned(project: Project, server: FileServer) -> None:
    use(project, f"url: '{server.address}/notes.txt', sha256: {hashlib.sha256(TEXT).hexdigest()}")
    server.raw["/notes.txt"] = lambda write: write(without_length(STUMP))
    ended = project.doit("first")
    assert ended.code == 1
    assert f"has sha256 {hashlib.sha256(STUMP).hexdigest()}, recipes/small.yaml pins" in ended.err
    server.raw["/notes.txt"] = lambda write: write(without_length(TEXT))
    ended = project.doit("first")
    assert (ended.code, ended.err) == (0, "")


def test_a_page_is_not_locked_and_the_error_names_the_address_of_the_file(project: Project, server: FileServer) -> None:
    server.files["/owner/name/blob/main/x.nemo"] = b"\n<!doctype HTML><html>...</html>"
    use(project, f"url: '{server.address}/owner/name/blob/main/x.nemo'", is_read=False)
    ended = project.doit("small:notes", environment={"HF_ENDPOINT": server.address})
    assert ended.code == 1
    fact, fix = ended.err.splitlines()
    assert fact.endswith(f"'{server.address}/owner/name/blob/main/x.nemo' is a web page, not the file")
    assert f"use '{server.address}/owner/name/resolve/main/x.nemo'" in fix
    assert not (project.root / "pipeline.lock.yaml").exists()
    assert not list(project.cache.rglob("*.nemo"))


@pytest.mark.parametrize("what", ["right", "busy", "not as pinned", "moved"])
def test_no_secret_of_an_address_is_written_or_shown(project: Project, server: FileServer, what: str) -> None:
    path = f"/notes.txt?token={SECRET}&sig={SECRET}"
    pin = f", sha256: '{'0' * 64}'" if what == "not as pinned" else ""
    use(project, f"url: '{server.address}{path}#{SECRET}'{pin}")
    server.files[path] = TEXT
    if what in ("busy", "moved"):
        status = {"busy": 503, "moved": 302}[what]
        server.answers[path] = (status, {"Retry-After": "0", "Location": f"/other?x={SECRET}"})
    shown = ""
    for words in ("first", "list --all", "plan small", "why first", "gc") if what == "right" else ("first",):
        ended = project.doit(*words.split())
        assert (ended.code == 0) == (what == "right"), ended.err
        shown += ended.out + ended.err
    assert f"{server.address}/notes.txt?token=***&sig=***#***" in shown
    assert SECRET not in shown
    for file in project.root.rglob("*"):
        assert SECRET not in file.name
        if file.is_file() and file != project.recipe_file:
            assert SECRET.encode() not in file.read_bytes(), file


@pytest.mark.parametrize("login", [f"user:{SECRET}", SECRET, f"user:{SECRET}/more"])
def test_a_login_in_a_recipe_is_refused_with_the_way_that_works(
    project: Project, server: FileServer, login: str
) -> None:
    use(project, f"url: 'https://{login}@host/notes.txt'")
    ended = project.doit("list")
    assert ended.code != 0
    fact, fix = ended.err.splitlines()
    assert "recipes/small.yaml:2:10: sources.notes: 'url' contains a " in fact
    assert fix == "  fix: put them into ~/.netrc: machine HOST login USER password PASSWORD" or "/more" in login
    assert SECRET not in ended.out + ended.err


def test_the_login_of_netrc_opens_its_host(project: Project, server: FileServer, tmp_path: Path) -> None:
    use(project, f"url: '{server.address}/notes.txt'")
    server.files["/notes.txt"] = TEXT
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login user password {SECRET}\n")
    ended = project.doit("first", environment={"HOME": str(tmp_path)})
    assert ended.code == 0, ended.err
    assert [(one.token or "")[:6] for one in server.asked] == ["Basic "]


def test_what_cannot_be_continued_is_cleared_away_and_what_can_is_kept(project: Project, server: FileServer) -> None:
    use(project, f"url: '{server.address}/notes.txt'", is_read=False)
    server.files["/notes.txt"] = TEXT * 1000
    server.break_after = [5000]
    server.after_break = (404, {})
    assert project.doit("small:notes").code == 1
    [part] = project.cache.rglob("part")
    assert "removed 0 artifacts and downloads" in project.doit("gc").out
    (part.parent / "validator").unlink()
    assert "removed 1 artifact or download, 0 records" in project.doit("gc").out
    assert not part.parent.exists()
