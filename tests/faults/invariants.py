"""What holds after every fault: nothing is lost, wrong, left over, left running, or outside the project.

A watched project is the small project with a home and a temporary folder of its own, in which nothing may appear. What
its recipe gives is known from a build of the same recipe in a fresh folder that nothing disturbed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from artifacts.digest import digest_json
from small_project import DOIT, Ended, Project, make_project

TIME_BOUND_SECONDS = 180  # of one `doit` that has a second of work, on a machine that is busy with much else
INTERRUPTED = (129, 130, 143)  # by SIGHUP, SIGINT, SIGTERM
MOST_BYTES = 2 << 30  # of each process, by address space
RECORD = re.compile(r"[0-9a-f]{64}\.json")

# Sources of a file and of a folder, a chain, targets that may run side by side, and a layout.
RECIPE = """\
sources:
  notes: {file: notes.txt}
  folder: {folder: folder}
resources: {memory_gib: 0.1}
targets:
  first: {step: write_text, params: {text: SALT, lines: 4, seconds: SECONDS}}
  given: {step: change_text, inputs: {text: folder}, params: {upper: true}}
  taken: {step: take_text, inputs: {source: notes}}
  both: {step: change_text, inputs: {text: first, more: given}, params: {suffix: ., seconds: SECONDS}}
layouts:
  flat: {step: change_text, inputs: {text: both, more: taken}}
"""


class Broken(AssertionError):  # noqa: N818  # it is what a failed test says
    """An invariant that did not hold. The harness adds the seed and the event."""


@dataclass
class Clean:
    """What clean builds give: the content of each key; per variant the targets' keys and every file a user sees."""

    contents: dict[str, str] = field(default_factory=dict)
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)


class WatchedProject(Project):
    """A project whose every run is checked."""

    def __init__(self, folder: Path, package: Path, recipe: str = RECIPE) -> None:
        made = make_project(folder / "project", package, recipe)
        super().__init__(made.root, package)
        self.outside = [folder / "home", folder / "tmp"]
        for path in self.outside:
            path.mkdir()
        (self.root / "recipes" / "folder").mkdir()
        (self.root / "recipes" / "folder" / "text.txt").write_text("a folder's text\n")

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the small project, with folders of its own for what a program might leave."""
        return super().environment | {"HOME": str(self.outside[0]), "TMPDIR": str(self.outside[1])}

    def run(self, *words: str, environment: Mapping[str, str] = {}, prefix: tuple[str, ...] = ()) -> Ended:
        """Run `doit` to its end; what it says and what it leaves is checked."""
        started = time.monotonic()
        process = self.launch(*words, environment=environment, prefix=prefix)
        ended = Ended(*self.wait(process, f"doit {' '.join(words)}"), time.monotonic() - started)
        check_said(ended)
        return ended

    def launch(
        self, *words: str, environment: Mapping[str, str] = {}, prefix: tuple[str, ...] = ()
    ) -> subprocess.Popen[str]:
        """Start `doit`, under another program if there is a prefix."""
        process = subprocess.Popen(
            [*prefix, *DOIT, *words],
            cwd=self.root,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))  # its steps inherit that
        return process

    def wait(self, process: subprocess.Popen[str], what: str) -> tuple[int, str, str]:
        """Exit code and what was said, within the time bound."""
        try:
            out, err = process.communicate(timeout=TIME_BOUND_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise Broken(f"hung: {what}\n{out}\n{err}") from None
        return process.returncode, out, err


def build_clean(folder: Path, package: Path, clean: Clean, variant: str, recipe: str, edit: Mapping[str, str]) -> None:
    """Build a variant in a fresh folder and note what it gives. `edit` holds other bytes for sources, by path."""
    project = WatchedProject(folder, package, recipe)
    for name, text in edit.items():
        (project.root / "recipes" / name).write_text(text)
    ended = project.run("-n", "2")
    if ended.code:
        raise Broken(f"a clean build failed\n{ended.out}\n{ended.err}")
    clean.keys[variant] = keys(project)
    clean.files[variant] = files(project)
    clean.contents |= contents(project)


def keys(project: Project) -> dict[str, str]:
    """The key of each target."""
    return {path.name.removesuffix(".key"): path.read_text() for path in project.cache.glob("small/.state/[!.]*.key")}


def contents(project: Project) -> dict[str, str]:
    """The content of each key, by the records that are whole."""
    found = {}
    for path in project.cache.glob("actions/*"):
        if RECORD.fullmatch(path.name):
            with contextlib.suppress(ValueError, KeyError, TypeError, FileNotFoundError):
                record = json.loads(path.read_bytes())
                if digest_json(record["action"]) == record["sha256"]:  # the store takes no other for a record
                    found[path.stem] = record["action"]["content"]
    return found


def records(project: Project) -> dict[str, int]:
    """The records of finished steps, each with its inode: one that is written again has another."""
    found = {}
    for path in project.cache.glob("actions/*"):
        if RECORD.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = path.stat().st_ino
    return found


def files(project: Project) -> dict[str, bytes]:
    """Every file that a user sees: those of targets, behind their links, those in dist, and the lock file."""
    found = {}
    for link in project.cache.glob("small/[!.]*"):
        if not link.is_symlink():
            raise Broken(f"'{link}' is not a link")
        for path in sorted(link.rglob("*")):
            found[f"{link.name}/{path.relative_to(link)}"] = path.read_bytes()
    for path in sorted((project.root / "dist").rglob("*")):
        if not path.is_dir():
            found[str(path.relative_to(project.root))] = path.read_bytes()
    lock = project.root / "pipeline.lock.yaml"
    return found | ({lock.name: lock.read_bytes()} if lock.exists() else {})


def check_said(ended: Ended) -> None:
    """No traceback, and whoever fails says so in two lines: the fact and the fix. Control-C needs no words."""
    said = f"exit code {ended.code}\n{ended.out}\n{ended.err}"
    if "Traceback" in ended.out + ended.err or "which is a bug" in ended.out + ended.err:
        raise Broken(f"a traceback, {said}")
    interrupted = ended.code in INTERRUPTED or "interrupted" in ended.err
    if ended.code > 0 and not interrupted and not re.search(r"^.+\n  fix: .+", ended.err, re.MULTILINE):
        raise Broken(f"failed without a fact and a fix, {said}")


def check_nothing_wrong(project: Project, clean: Clean) -> None:
    """Whatever is recorded as finished is what a clean build gives for that key."""
    recorded = contents(project)
    for key in sorted(recorded, key=lambda key: key not in clean.contents):  # others may only follow from those known
        content = recorded[key]
        if clean.contents.get(key) != content:
            wanted = clean.contents.get(key, "a key that no clean build has")
            raise Broken(f"wrong: {key} is recorded to give {content}, by a clean build {wanted}")


def check_converged(project: Project, clean: Clean, variant: str) -> None:
    """All is as after a clean build, byte for byte, and no temporary name is left."""
    check_nothing_wrong(project, clean)
    for what, is_, wanted in (
        ("keys", keys(project), clean.keys[variant]),
        ("files", files(project), clean.files[variant]),
    ):
        if is_ != wanted:
            differing = [name for name in is_.keys() | wanted.keys() if is_.get(name) != wanted.get(name)]  # type: ignore[attr-defined]
            raise Broken(f"wrong {what}: {sorted(differing)}")
    for path in project.cache.glob("downloads/[0-9a-f]*/*"):
        if hashlib.sha256(path.read_bytes()).hexdigest() != path.parent.name:
            raise Broken(f"wrong: the download {path.relative_to(project.root)}")
    check_no_leftovers(project)


def check_no_leftovers(project: Project) -> None:
    """Nothing that was on its way to its name is left."""
    left = [*project.cache.glob("staging/*"), *project.cache.glob("downloads/partial/*/part")]
    left += [path for top in (project.cache, project.root / "dist") for path in top.rglob(".*")]
    left = [path for path in left if path.name not in (".state", ".gitignore")]
    if left:
        raise Broken(f"left over: {[str(path.relative_to(project.root)) for path in left]}")


def check_outside(project: WatchedProject) -> None:
    """Nothing was written to the home or the temporary folder."""
    found = [str(path) for folder in project.outside for path in folder.rglob("*")]
    if found:
        raise Broken(f"bytes outside the project: {found}")


def survivors(root: Path) -> list[int]:
    """Processes that belong to what lies below `root`, by their command line or their working folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes()
            mine = os.fsencode(root) in words or (folder / "cwd").readlink().is_relative_to(root)
            if mine and (folder / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                found.append(int(folder.name))
    return found


def check_no_survivors(root: Path) -> None:
    """The kernel needs a moment to end what a killed process leaves."""
    end = time.monotonic() + 30
    while left := survivors(root):
        if time.monotonic() > end:
            raise Broken(f"processes survived: {left}")
        time.sleep(0.01)
