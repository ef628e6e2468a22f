"""Sources over HTTP and from the hub, through real servers: resumed, verified, locked, and never fetched twice."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import time

import pytest

from small_project import Project
from small_server import COMMIT, FileServer

pytestmark = pytest.mark.slow

DATA = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(DATA).hexdigest()
URL_PATH = "/models/notes.bin"
BRANCH_PATH, HUB_PATH = (f"/owner/name/resolve/{revision}/sub/notes.bin" for revision in ("main", COMMIT))


def use(project: Project, server: FileServer, source: str, pin: str | None = None) -> None:
    """Let the project have one source, from this server."""
    text = source.replace("ADDRESS", server.address)
    pinned = f", sha256: '{pin}'" if pin else ""
    project.recipe(f"sources:\n  notes: {{{text}{pinned}}}\ntargets:\n  first: {{step: write_text}}\n")
    offer(server, DATA)


def offer(server: FileServer, data: bytes) -> None:
    """Let the server have this file, at the address of each kind."""
    server.files |= dict.fromkeys((URL_PATH, BRANCH_PATH, HUB_PATH), data)


def hub(project: Project, server: FileServer) -> dict[str, str]:
    """The environment in which this server is the hub."""
    return {"HF_ENDPOINT": server.address, "HF_HOME": str(project.root / "home"), "HF_TOKEN": "hf_secret"}


def fetch(project: Project, server: FileServer, *words: str) -> tuple[int, str, str]:
    """Run `doit` for the source alone."""
    ended = project.doit(*words, "small:notes", environment=hub(project, server))
    return ended.code, ended.out, ended.err


KINDS = {"url": ("url: 'ADDRESS/models/notes.bin'", URL_PATH),
         "hf": ("hf: owner/name@main, file: sub/notes.bin", HUB_PATH)}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_is_fetched_once_locked_and_held_to_it(project: Project, server: FileServer, kind: str) -> None:
    source, path = KINDS[kind]
    use(project, server, source)
    code, out, err = fetch(project, server)
    assert code == 0, err
    assert "found small:notes  512 kB" in out
    lock = project.root / "pipeline.lock.yaml"
    address = "hf:owner/name@main/sub/notes.bin" if kind == "hf" else f"{server.address}/models/notes.bin"
    commit = f"    commit: {COMMIT}\n" if kind == "hf" else ""
    assert lock.read_text().endswith(f"sources:\n  {address}:\n{commit}    sha256: {SHA256}\n")
    assert (project.cache / "downloads" / SHA256 / "notes.bin").read_bytes() == DATA
    offer(server, b"other bytes")
    assert "1 target, unchanged" in fetch(project, server)[1]
    assert len(server.gets(path)) == 1
    (project.cache / "downloads" / SHA256 / "notes.bin").unlink()
    code, _, err = fetch(project, server)
    assert code == 1
    other = hashlib.sha256(b"other bytes").hexdigest()
    assert re.match(rf"recipes/small.yaml:2:3: sources.notes: '.*' has sha256 {other}, pipeline.lock.yaml pins", err)
    offer(server, DATA)
    assert fetch(project, server)[0] == 0
    assert SHA256 in lock.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_that_are_not_the_pinned_ones_are_refused_and_nothing_is_locked(
    project: Project, server: FileServer, kind: str
) -> None:
    use(project, server, KINDS[kind][0], pin="0" * 64)
    code, _, err = fetch(project, server)
    assert code == 1
    assert re.fullmatch(rf"recipes/small.yaml:2:3: sources.notes: '.*notes.bin.*' has sha256 {SHA256}, "
                        r"recipes/small.yaml pins 0{64}\n  fix: .*\n", err)  # fmt: skip
    assert not (project.root / "pipeline.lock.yaml").exists()
    use(project, server, KINDS[kind][0], pin=SHA256)
    assert fetch(project, server)[0] == 0
    assert len(server.gets(KINDS[kind][1])) == 1  # what had arrived is found by the right pin


@pytest.mark.parametrize("kind", KINDS)
def test_a_download_whose_run_was_killed_before_it_took_its_place_is_not_fetched_again(
    project: Project, server: FileServer, kind: str
) -> None:
    use(project, server, KINDS[kind][0], pin=SHA256)
    assert fetch(project, server)[0] == 0
    [arrived] = project.cache.glob("downloads/*/notes.bin")
    [partial] = [path for path in project.cache.glob("downloads/partial/*") if path.is_dir()]
    arrived.rename(partial / "whole")
    assert fetch(project, server)[0] == 0
    assert len(server.gets(KINDS[kind][1])) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_connection_is_resumed_in_the_same_run_and_told(
    project: Project, server: FileServer, kind: str
) -> None:
    source, path = KINDS[kind]
    use(project, server, source, pin=SHA256)
    server.break_after = [200_000]
    code, _, err = fetch(project, server)
    assert code == 0, err
    told = r"WARNING: '.*notes.bin'.* broke off after 200000 of 512000 bytes; it is tried again in \d.\d s\n"
    assert re.fullmatch(told, err)
    assert [one.range for one in server.gets(path)] == [None, "bytes=200000-"]


def test_a_download_that_fails_is_resumed_by_the_next_run(project: Project, server: FileServer) -> None:
    use(project, server, KINDS["url"][0], pin=SHA256)
    server.break_after = [200_000]
    server.after_break = (503, {"Retry-After": "86400"})
    code, _, err = fetch(project, server)
    assert code == 1
    assert re.search(
        r"^recipes/small.yaml:2:3: sources.notes: '.*notes.bin' answers 503 .*, and asks to wait 86400 s\n"
        r"  fix: wait that long, then run again; the download continues where it stopped\n\Z",
        err,
        flags=re.MULTILINE,
    )
    server.once.clear()
    assert fetch(project, server)[0] == 0
    assert [one.range for one in server.gets(URL_PATH)] == [None, "bytes=200000-", "bytes=200000-"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_download_is_resumed(project: Project, server: FileServer, kind: str) -> None:
    source, path = KINDS[kind]
    piece = 1 << 20
    data = bytes(3 * piece)
    use(project, server, source, pin=hashlib.sha256(data).hexdigest())
    offer(server, data)
    server.pause_seconds = (1 << 14) / piece  # a piece in a second
    process = project.start("small:notes", environment=hub(project, server))
    end = time.monotonic() + 30
    while not any(one.stat().st_size >= piece for one in project.cache.glob("downloads/partial/*/part")):
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    server.pause_seconds = 0.0
    [part] = project.cache.glob("downloads/partial/*/part")
    arrived = part.stat().st_size
    assert fetch(project, server)[0] == 0
    assert [one.range for one in server.gets(path)] == [None, f"bytes={arrived}-"]
    assert piece <= arrived < 3 * piece


def test_a_file_that_was_replaced_meanwhile_is_fetched_from_its_beginning(project: Project, server: FileServer) -> None:
    use(project, server, KINDS["url"][0])
    server.files[URL_PATH] = b"old" * 100_000
    server.moves[URL_PATH] = DATA
    server.break_after = [200_000]
    assert fetch(project, server)[0] == 0
    assert [one.range for one in server.gets(URL_PATH)] == [None, "bytes=200000-"]
    assert (project.cache / "downloads" / SHA256 / "notes.bin").read_bytes() == DATA


def test_a_download_that_was_killed_after_its_last_byte_is_not_made_again(project: Project, server: FileServer) -> None:
    use(project, server, KINDS["url"][0], pin=SHA256)
    server.break_after = [200_000]
    server.after_break = (404, {})
    fetch(project, server)
    [part] = project.cache.rglob("part")
    part.write_bytes(DATA)
    server.once.clear()
    code, _, err = fetch(project, server)
    assert code == 0, err
    assert len(server.gets(URL_PATH)) == 3, "the last was answered with 416 and no bytes"


def test_two_runs_at_once_fetch_it_once(project: Project, server: FileServer) -> None:
    use(project, server, KINDS["url"][0])
    server.pause_seconds = 0.5  # until the second waits
    both = [project.start("small:notes")]
    end = time.monotonic() + 30
    while not server.gets(URL_PATH):
        assert time.monotonic() < end
        time.sleep(0.01)
    both.append(project.start("small:notes"))
    assert both[1].stdout is not None
    waiting = "small:notes: waiting: another process fetches it\n"
    assert both[1].stdout.readline().strip() == waiting.strip()
    server.pause_seconds = 0.0
    for process in both:
        out, err = process.communicate(timeout=30)
        assert (process.returncode, waiting in out) == (0, False), out + err
    assert len(server.gets(URL_PATH)) == 1


def test_a_damaged_download_is_fetched_again(project: Project, server: FileServer) -> None:
    use(project, server, KINDS["url"][0])
    fetch(project, server)
    (project.cache / "downloads" / SHA256 / "notes.bin").write_bytes(b"damaged")
    code, _, err = fetch(project, server)
    assert code == 0
    assert "was damaged and is fetched again" in err
    assert (project.cache / "downloads" / SHA256 / "notes.bin").read_bytes() == DATA


@pytest.mark.parametrize(
    ("kind", "status", "code", "fact", "fix"),
    [
        ("url", 404, "", "'ADDRESS/models/notes.bin' answers 404 Not Found", "correct the address, or ask its owner"),
        ("url", 500, "", "'ADDRESS/models/notes.bin' answers 500 Internal", "check the network, then run again; "),
        ("hf", 404, "EntryNotFound", "'owner/name@main' has no file 'sub/notes.bin'", "correct the file's name"),
        ("hf", 404, "RevisionNotFound", "'owner/name' has no revision 'main'", "name a commit, a tag or a branch"),
        ("hf", 401, "RepoNotFound", "the hub has no repository 'owner/name'", "correct the name, or log in with "),
        ("hf", 403, "GatedRepo", "'owner/name@main' is gated", "accept its terms on the hub, then log in with "),
        (
            "hf",
            400,
            "",
            "'sub/notes.bin' of 'owner/name@main' cannot be fetched: ",
            "check the network, then run again",
        ),
    ],
)
def test_a_server_that_refuses_is_told_in_two_lines(
    project: Project, server: FileServer, kind: str, status: int, code: str, fact: str, fix: str
) -> None:
    source, path = KINDS[kind]
    use(project, server, source)
    path = path.replace(COMMIT, "main")
    server.answers[path] = (status, {"X-Error-Code": code, "X-Repo-Commit": "x", "ETag": '"x"', "Retry-After": "0"})
    ended, out, err = fetch(project, server)
    assert ended == 1
    lines = err.splitlines()[-2:]
    assert lines[0].startswith("recipes/small.yaml:2:3: sources.notes: " + fact.replace("ADDRESS", server.address))
    assert lines[-1].startswith(f"  fix: {fix}")
    assert "Traceback" not in err
    assert re.search(r"small:notes +failed", out)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_not_there_is_told_in_two_lines(project: Project, kind: str) -> None:
    nobody = FileServer("http://127.0.0.1:9")
    use(project, nobody, KINDS[kind][0])
    code, _, err = fetch(project, nobody)
    assert code == 1
    fact, fix = err.splitlines()
    assert re.fullmatch(r"recipes/small.yaml:2:3: sources.notes: '.*notes.bin'.* cannot be fetched: .* refused>?", fact)
    assert fix == "  fix: check the network, then run again; the download continues where it stopped"


def test_the_token_is_shown_to_the_hub_and_to_no_host_behind_it(project: Project, server: FileServer) -> None:
    use(project, server, KINDS["hf"][0], pin=SHA256)
    assert fetch(project, server)[0] == 0
    assert [one.token for one in server.gets(HUB_PATH)] == ["Bearer hf_secret"]
    other = server.address.replace("127.0.0.1", "localhost")
    server.files["/signed?key=1"] = DATA
    server.answers[BRANCH_PATH] = (
        302,
        {"Location": f"{other}/signed?key=1", "X-Linked-Etag": '"x"', "X-Repo-Commit": "x"},
    )
    shutil.rmtree(project.cache / "downloads")
    assert fetch(project, server)[0] == 0
    assert [one.token for one in server.gets("/signed?key=1")] == [None]


def test_a_hint_says_how_to_get_it(project: Project, server: FileServer) -> None:
    use(project, server, KINDS["url"][0] + ", hint: ask the owner of the models")
    server.answers[URL_PATH] = (403, {})
    assert fetch(project, server)[2].endswith("  fix: ask the owner of the models\n")


def test_a_source_is_followed_to_where_it_moved(project: Project, server: FileServer) -> None:
    use(project, server, KINDS["url"][0], pin=SHA256)
    server.files["/elsewhere"] = server.files.pop(URL_PATH)
    server.answers[URL_PATH] = (302, {"Location": "/elsewhere"})
    assert fetch(project, server)[0] == 0


def test_plan_fetches_nothing(project: Project, server: FileServer) -> None:
    use(project, server, KINDS["url"][0], pin=SHA256)
    assert re.search(r"^fetch +small:notes", project.doit("plan", "small").out, flags=re.MULTILINE)
    assert server.asked == []


def test_gc_keeps_downloads_that_a_source_is_pinned_to_and_drops_others(project: Project, server: FileServer) -> None:
    use(project, server, KINDS["url"][0])
    fetch(project, server)
    assert "removed 0 artifacts and downloads" in project.doit("gc").out
    (project.root / "pipeline.lock.yaml").unlink()
    project.recipe("targets:\n  first: {step: write_text}\n")
    assert re.match(r"removed 2 artifacts and downloads, 0 records, 512 kB", project.doit("gc").out)
    assert list((project.cache / "downloads").rglob("*.bin")) == []
