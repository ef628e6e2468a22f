"""Let each call of a build that changes the disk fail once, as on a full disk (ENOSPC) and on a broken one (EIO).

strace counts the calls of a build that nothing disturbs, and then injects an error into one of them, build after build.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from faults.invariants import (
    Broken,
    Clean,
    WatchedProject,
    build_clean,
    check_converged,
    check_no_survivors,
    check_nothing_wrong,
    check_outside,
    check_said,
    files,
)
from small_project import Ended

# Two targets, one of a source and one that is laid out: each kind of write that a build makes is among its calls.
RECIPE = """\
sources: {notes: {file: notes.txt}}
targets:
  taken: {step: take_text, inputs: {source: notes}}
layouts:
  flat: {step: change_text, inputs: {text: taken}, params: {suffix: SALT}}
"""
CALLS = (
    "write", "pwrite64", "writev", "fsync", "fdatasync", "rename", "renameat", "renameat2", "openat", "mkdir",
    "mkdirat", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir", "copy_file_range", "ftruncate",
    "chmod", "fchmod", "fchmodat",
)  # fmt: skip
ERRORS = ("ENOSPC", "EIO")
STEADY = {"PYTHONHASHSEED": "0"}  # the Nth call is the same one in every run
# Steps are traced where doit starts them by this program, and not by the interpreter itself.
STEP_STARTER = (
    "import sys; from doit.doit_cmd import DoitMain; sys.executable = {!r}; sys.exit(DoitMain().run(sys.argv[4:]))"
)


@dataclass(frozen=True)
class Event:
    """The error that the Nth call of a name gives: in `doit` itself or in a step; in a first build or a second."""

    where: str
    state: str
    call: str
    number: int
    error: str


def run(count: int, seed: int, folder: Path, package: Path) -> Counter[str]:
    """Inject `count` errors, drawn from all that can be by `seed`; all of them if there are no more.

    Returns the errors by name, how many calls there were, and how many errors met another call than the one counted.
    Raises Broken with the event.
    """
    clean = Clean()
    project = WatchedProject(folder / "disturbed", package, recipe("two"))
    for variant in ("one", "two"):
        build_clean(folder / f"clean {variant}", package, clean, variant, recipe(variant), {})
    templates = _templates(project, folder)
    log = folder / "log"
    events: list[Event] = []
    counts: Counter[str] = Counter()
    for state in templates:
        for where in ("doit", "step"):
            _restore(project, templates[state])
            _traced(project, where, log, folder, "")
            calls = _calls(log, project)
            counts["calls"] += len(calls)
            for index, (call, number, _) in enumerate(calls):
                # Both errors in a first build; in a second one, which makes much the same calls, one or the other.
                errors = ERRORS if state == "first" else ERRORS[index % 2 :][:1]
                events += [Event(where, state, call, number, error) for error in errors]
    for event in random.Random(seed).sample(events, min(count, len(events))):
        _restore(project, templates[event.state])
        inject = f"inject={event.call}:error={event.error}:when={event.number}"
        try:
            ended = _traced(project, event.where, log, folder, inject)
            hit = any("INJECTED" in line for _, _, line in _calls(log, project))
            if hit:
                check_said(ended)
            _check_after(project, clean)
        except Broken as broken:
            raise Broken(f"seed {seed}: {event}: {broken}") from None
        counts[event.error if hit else "met another call"] += 1
    return counts


def recipe(variant: str) -> str:
    """The recipe of a variant: its layout ends with another word."""
    return RECIPE.replace("SALT", variant)


def _templates(project: WatchedProject, folder: Path) -> dict[str, Path]:
    """States that a build of variant `two` begins with: nothing built yet, and variant `one` built."""
    templates = {state: folder / state for state in ("first", "second")}
    shutil.copytree(project.root, templates["first"], symlinks=True)
    project.recipe(recipe("one"))
    project.run()
    project.recipe(recipe("two"))
    shutil.copytree(project.root, templates["second"], symlinks=True)
    return templates


def _restore(project: WatchedProject, template: Path) -> None:
    shutil.rmtree(project.root)
    shutil.copytree(template, project.root, symlinks=True)


def _traced(project: WatchedProject, where: str, log: Path, folder: Path, inject: str) -> Ended:
    """Run `doit` with itself or its steps traced. Lines of the log begin with a thread's number."""
    for old in log.parent.glob(f"{log.name}*"):
        old.unlink()
    traced_calls = re.match("inject=([^:]+)", inject)[1] if inject else ",".join(CALLS)  # type: ignore[index]
    strace = ["strace", "-f", "--seccomp-bpf", "-y", "-e", f"trace={traced_calls}"]
    strace += ["-e", inject] if inject else []
    if where == "doit":
        prefix = (*strace, "-b", "execve", "-o", str(log))
    else:
        starter = folder / "starter"
        # -D: the step stays a child of doit. Its log has a name of its own, since several steps run.
        traced = " ".join(f"'{word}'" for word in [*strace, "-D", "-o"])
        starter.write_text(f'#!/bin/sh\nexec {traced} "{log}.$$" "{sys.executable}" "$@"\n')
        starter.chmod(0o755)
        prefix = (sys.executable, "-c", STEP_STARTER.format(str(starter)))
    process = project.launch(environment=STEADY, prefix=prefix)
    ended = Ended(*project.wait(process, f"{where} {inject}"), 0.0)
    check_no_survivors(project.root)
    return ended


def _calls(log: Path, project: WatchedProject) -> list[tuple[str, int, str]]:
    """The calls that change the project: name, how many of that name the thread had made with it, and the line.

    Raises Broken for a call that changes anything outside the project.
    """
    found = {}
    for part in sorted(log.parent.glob(f"{log.name}*")):
        made: Counter[tuple[str, str]] = Counter()
        for line in part.read_text(errors="replace").splitlines():
            if not (parsed := re.match(r"(?:(\d+) +)?(\w+)\((.*)", line)):
                continue
            thread, call, rest = parsed.groups()
            made[thread, call] += 1
            if call == "openat" and not re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC)", rest):
                continue
            place = _place(call, rest, project.root)
            if place is not None and place.is_relative_to(project.root):
                found.setdefault((call, made[thread, call]), line)
            elif place is not None and place.parts[1] not in ("dev", "proc") and "ENOENT" not in rest:
                raise Broken(f"outside the project: {line}")
    return [(call, number, line) for (call, number), line in found.items()]


def _place(call: str, rest: str, root: Path) -> Path | None:
    """The path that a call changes, or None for a pipe or a socket. What is relative is so to the project."""
    named = re.match(r'(?:(?:AT_FDCWD|\d+)(?:<([^>]*)>)?, )?"((?:[^"\\]|\\.)*)"', rest)
    if named and call not in ("write", "pwrite64", "writev", "symlink", "symlinkat"):
        return Path(os.path.normpath(root / (named[1] or "") / named[2]))
    if call in ("symlink", "symlinkat"):
        return Path(os.path.normpath(root / re.findall(r'"((?:[^"\\]|\\.)*)"', rest)[-1]))
    opened = re.match(r"\d+<(/[^>]*)>", rest)
    return Path(opened[1]) if opened else None


def _check_after(project: WatchedProject, clean: Clean) -> None:
    """What was laid out is whole, and the next run, without errors, ends well."""
    check_nothing_wrong(project, clean)
    laid_out = {name: data for name, data in _in_dist(files(project)).items() if ".unfinished" not in name}
    if laid_out not in [{}, *(_in_dist(known) for known in clean.files.values())]:
        raise Broken(f"what is laid out is neither the old nor the new: {sorted(laid_out)}")
    ended = project.run()
    if ended.code:
        raise Broken(f"the next run fails\n{ended.out}\n{ended.err}")
    check_converged(project, clean, "two")
    check_outside(project)


def _in_dist(found: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in found.items() if name.startswith("dist/")}
