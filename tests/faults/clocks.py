"""Clocks that are wrong, run apart or tick slowly: edits are noticed whatever the times of files say."""

from __future__ import annotations

import compileall
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path

from faults.invariants import (
    RECIPE,
    Broken,
    Clean,
    WatchedProject,
    build_clean,
    check_converged,
    check_outside,
    records,
)

TEXTS = ("some notes\n", "more notes\n")  # of one size
SHIFTS = (0.0, 0.05, 0.5, 3600.0, 1e9, -0.05, -0.5, -3600.0, -1e9)  # seconds that this machine is ahead of its disk
# Seconds since 1970 that an edited file says: before all files, a round one, the last of 32 bits, far ahead.
TIMES = (-1.0, 0.0, 1.0, 1e9, 2.0**31 - 1, 2.0**31, 4e9)
SHIFTED = """\
import pathlib, time
_time, _shift = time.time, float(pathlib.Path(__file__).with_name("shift.txt").read_text())
time.time = lambda: _time() + _shift
time.time_ns = lambda: int(time.time() * 1e9)
"""


def run(count: int, seed: int, folder: Path, package: Path) -> Counter[str]:
    """Edit a source `count` times, under clocks that are ahead of the disk's or behind it; returns the events by kind.

    Two machines with one disk look alike: the times of files come from one clock, the time of day from another. Event
    `n` is drawn from the seed `seed + n`. Raises Broken with that seed.
    """
    shifted = folder / "shifted"
    shutil.copytree(package, shifted)
    (shifted / "sitecustomize.py").write_text(SHIFTED)
    (shifted / "shift.txt").write_text("0")
    compileall.compile_file(shifted / "sitecustomize.py", quiet=1)
    clean, project = _prepare(folder, shifted)
    counts: Counter[str] = Counter()
    for number in range(seed, seed + count):
        draw = random.Random(number)
        shift, times = draw.choice(SHIFTS), draw.choice(["kept", "set", "left"])
        (shifted / "shift.txt").write_text(str(shift))
        path = project.root / "recipes" / "notes.txt"
        text = TEXTS[path.read_text() == TEXTS[0]]
        what = f"shift {shift}, mtime {times}"
        try:
            _edit(path, text, times, draw)
            if draw.random() < 0.5:
                _tell(project)
            _accept(project, clean, text)
            finished = records(project)
            for artifact in project.cache.glob("artifacts/*/files/*"):
                if draw.random() < 0.3:
                    os.utime(artifact, (draw.choice(TIMES), draw.choice(TIMES)))
            _accept(project, clean, text)
            if records(project) != finished:
                raise Broken("what only has other times was built again")
            check_outside(project)
        except Broken as broken:
            raise Broken(f"seed {number}: {what}: {broken}") from None
        counts[f"mtime {times}"] += 1
    return counts


def run_slow_ticks(count: int, seed: int, disk: Path, package: Path) -> Counter[str]:
    """Edit a source within one tick of a disk that knows whole seconds, `count` times if the machine is fast enough.

    Returns how many edits moved no time of the file, and how many came a tick later. Raises Broken with the seed.
    """
    clean, project = _prepare(disk, package)
    path = project.root / "recipes" / "notes.txt"
    counts: Counter[str] = Counter()
    for number in range(seed, seed + 3 * count):
        draw = random.Random(number)
        first = draw.choice(TEXTS)
        second = TEXTS[first == TEXTS[0]]
        (project.root / "pipeline.lock.yaml").unlink(missing_ok=True)
        time.sleep(-time.time() % 1 + 0.02)  # a second has just begun
        path.write_text(first)
        before = path.stat()
        time.sleep(0.12)
        project.run("plan")
        path.write_text(second)
        after = path.stat()
        same = (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
        counts["in one tick" if same else "a tick later"] += 1
        try:
            _accept(project, clean, second)
        except Broken as broken:
            raise Broken(f"seed {number}: edited {'in one tick' if same else 'a tick later'}: {broken}") from None
        if counts["in one tick"] == count:
            break
    return counts


def _prepare(folder: Path, package: Path) -> tuple[Clean, WatchedProject]:
    """A built project, and what clean builds give for each text of its source."""
    text = RECIPE.replace("SALT", "one").replace("SECONDS", "0.0")
    clean = Clean()
    for index, notes in enumerate(TEXTS):
        build_clean(folder / f"clean {index}", package, clean, notes, text, {"notes.txt": notes})
    project = WatchedProject(folder / "edited", package, text)
    _accept(project, clean, TEXTS[0])
    return clean, project


def _edit(path: Path, text: str, times: str, draw: random.Random) -> None:
    """Write a source in place; its mtime is left to the clock, kept as it was, or set."""
    before = path.stat()
    path.write_text(text)
    if times == "kept":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif times == "set":
        os.utime(path, (draw.choice(TIMES), draw.choice(TIMES)))


def _tell(project: WatchedProject) -> None:
    """A run tells that the source is not what it is locked to."""
    ended = project.run()
    if ended.code == 0 or "pipeline.lock.yaml pins" not in ended.err:
        raise Broken(f"the edit was not noticed, exit code {ended.code}\n{ended.out}\n{ended.err}")


def _accept(project: WatchedProject, clean: Clean, text: str) -> None:
    """Without the lock, a run takes the source as it is now."""
    (project.root / "pipeline.lock.yaml").unlink(missing_ok=True)
    ended = project.run()
    if ended.code:
        raise Broken(f"it does not end well\n{ended.out}\n{ended.err}")
    check_converged(project, clean, text)
