"""Flip bits in every kind of file that a project keeps, seen by the file system or silently."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from faults.invariants import (
    RECIPE,
    Broken,
    Clean,
    WatchedProject,
    build_clean,
    check_converged,
    check_nothing_wrong,
    check_outside,
)
from faults.own_disk import Disk
from small_server import FileServer

VARIANT = "one"
DOWNLOAD = "  page: {{url: '{0}/page.txt'}}\n"
TAKEN = "  fetched: {step: take_text, inputs: {source: page}}\n"
MOST_AT_ONCE = 6


def run(count: int, seed: int, folder: Path, package: Path, server: FileServer) -> Counter[str]:
    """Flip `count` bits, one to six before each run of `doit`; returns the flips by kind of file.

    A flip moves the file's times, or leaves its mtime as it was. Round `n` is drawn from the seed `seed + n`. Raises
    Broken with that seed.
    """
    clean, project = _prepare(folder, package, server)
    counts: Counter[str] = Counter()
    number = seed
    while counts.total() < count:
        draw = random.Random(number)
        with _log_beside_digests(project) if draw.random() < 0.2 else contextlib.nullcontext():
            chosen = _choose(project, draw, min(MOST_AT_ONCE, count - counts.total()))
            events = [f"{_flip(path, draw)} in {path.relative_to(project.root)}" for path in chosen]
        try:
            first = draw.choice([None, None, None, "plan", "why", "list", "verify"])
            if first:
                project.run(first)
            _converge(project, clean)
            check_outside(project)
        except Broken as broken:
            raise Broken(f"seed {number}: {events}: {broken}") from None
        counts.update(kind(project, path) for path in chosen)
        number += 1
    return counts


def run_rot(count: int, seed: int, disk: Disk, package: Path, server: FileServer) -> Counter[str]:
    """Flip `count` bits on the disk, below the file system: no time and no size moves. Returns the flips by kind.

    What is built from rotten bytes meanwhile must not be recorded; `doit verify`
    tells the rot, and its fix repairs it. Raises Broken with the seed of the round.
    """
    clean, project = _prepare(disk.folder / str(seed), package, server)
    counts: Counter[str] = Counter()
    number = seed
    while counts.total() < count:
        draw = random.Random(number)
        rotten = [path for path in _choose(project, draw, min(3, count - counts.total())) if path.stat().st_size]
        rotten = [path for path in rotten if not path.name.startswith("digests.sqlite")]  # sqlite may be writing there
        events = [f"bit {disk.rot(path, draw)} in {path.relative_to(project.root)}" for path in rotten]
        for path in sorted(project.cache.glob("actions/[0-9a-f]*")):  # so that steps read what is rotten
            if draw.random() < 0.3:
                events.append(f"without {path.name}")
                path.unlink()
        try:
            project.run()
            check_nothing_wrong(project, clean)
            said = project.run("verify")
            check_nothing_wrong(project, clean)
            if said.code not in (0, 1) and "pipeline.lock.yaml" not in said.err:  # a lock that cannot be read
                raise Broken(f"verify ends with {said.code}\n{said.err}")
            _converge(project, clean)
            said = project.run("verify")
            if said.code:
                raise Broken(f"verify finds more after the fix\n{said.err}")
        except Broken as broken:
            raise Broken(f"seed {number}: {events}: {broken}") from None
        counts.update(kind(project, path) for path in rotten)
        number += 1
    return counts


def kind(project: WatchedProject, path: Path) -> str:
    """What sort of file it is."""
    parts = path.relative_to(project.root).parts
    if parts[0] != "cache":
        return parts[0] if parts[0] != "recipes" else "lock file"
    match parts:
        case (_, "artifacts", _, "manifest.json"):
            return "manifest"
        case (_, "small", ".state", name):
            return "key" if name.endswith(".key") else "manifest beside a path"
        case (_, "artifacts" | "actions" | "downloads" | "locks" | "logs", *_):
            return parts[1]
    return path.name


def _prepare(folder: Path, package: Path, server: FileServer) -> tuple[Clean, WatchedProject]:
    """A built project with a download, and what a clean build gives."""
    server.files["/page.txt"] = b"a page\n" * 40
    text = RECIPE.replace("SALT", VARIANT).replace("SECONDS", "0.0")
    text = text.replace("resources:", DOWNLOAD.format(server.address) + "resources:", 1)
    text = text.replace("layouts:", TAKEN + "layouts:")
    clean = Clean()
    folder.mkdir(exist_ok=True)
    build_clean(folder / "clean", package, clean, VARIANT, text, {})
    project = WatchedProject(folder / "flipped", package, text)
    _converge(project, clean)
    return clean, project


def _choose(project: WatchedProject, draw: random.Random, most: int) -> list[Path]:
    """Some files, each kind as likely as another."""
    by_kind: dict[str, list[Path]] = {}
    lock = project.root / "pipeline.lock.yaml"
    for path in sorted([*project.cache.rglob("*"), *(project.root / "dist").rglob("*"), lock]):
        if path.is_file() and not any(folder.is_symlink() for folder in path.parents):
            by_kind.setdefault(kind(project, path), []).append(path)
    return list({draw.choice(by_kind[draw.choice(sorted(by_kind))]): None for _ in range(draw.randint(1, most))})


def _flip(path: Path, draw: random.Random) -> str:
    """Flip a bit, or let a byte appear in an empty file. Every second time the mtime stays."""
    before = path.stat()
    data = bytearray(path.read_bytes()) or bytearray(1)
    bit = draw.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(before.st_mode)
    if draw.random() < 0.5:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return f"bit {bit}, mtime kept,"
    return f"bit {bit}"


def _converge(project: WatchedProject, clean: Clean) -> None:
    """One run ends well; a flip in the lock file may be told instead, or do no harm: then the file is put back."""
    ended = project.run()
    lock = project.root / "pipeline.lock.yaml"
    known = clean.files[VARIANT].get(lock.name)
    if known is not None and lock.read_bytes() != known:
        if ended.code and lock.name not in ended.err:
            raise Broken(f"a flip in the lock file is not told\n{ended.out}\n{ended.err}")
        check_nothing_wrong(project, clean)
        lock.write_bytes(known)
        ended = project.run()
    if ended.code:
        raise Broken(f"it does not end well\n{ended.out}\n{ended.err}")
    check_converged(project, clean, VARIANT)


@contextlib.contextmanager
def _log_beside_digests(project: WatchedProject) -> Iterator[None]:
    """What SQLite writes beside its database, as a killed run leaves it, while the body runs and after."""
    path, kept = project.cache / "digests.sqlite", {}
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA cache_size=1")  # pages, so that a change is written before its end
        database.execute("CREATE TABLE IF NOT EXISTS more (x)")
        database.execute("BEGIN")
        database.executemany("INSERT INTO more VALUES (?)", [("x" * 4000,)] * 20)
        kept = {found: found.read_bytes() for found in project.cache.glob("digests.sqlite*")}
        database.rollback()
        database.execute("DROP TABLE more")
    for found, data in kept.items():
        found.write_bytes(data)
    yield
