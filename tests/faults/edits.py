"""Edit a source, or a step's code, for a moment while a step reads it, and put it back before the step has ended."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from pathlib import Path

from faults.invariants import (
    Broken,
    Clean,
    WatchedProject,
    build_clean,
    check_converged,
    check_nothing_wrong,
    check_said,
)
from small_project import Ended

RECIPE = """\
sources: {notes: {file: notes.txt}}
targets:
  taken: {step: take_text, inputs: {source: notes}}
layouts:
  flat: {step: change_text, inputs: {text: taken}}
"""
VARIANT = "as it was"
# What is edited, and how: by the parts of its path below the project or the package.
EDITS = {
    "source": ("recipes/notes.txt", "some notes", "more notes"),
    "code": ("steps/take_text.py", "* params.times)", "* (params.times + 1))"),
}


def run(count: int, seed: int, folder: Path, package: Path) -> Counter[str]:
    """Edit something for a moment during `count` first builds; returns the events by what was edited and what was said.

    Either the run tells that it changed meanwhile, or the result is that of the bytes as they were. Event `n` is drawn
    from the seed `seed + n`. Raises Broken with that seed.
    """
    own = folder / "package"
    shutil.copytree(package, own)
    clean = Clean()
    build_clean(folder / "clean", own, clean, VARIANT, RECIPE, {})
    project = WatchedProject(folder / "edited", own, RECIPE)
    counts: Counter[str] = Counter()
    for number in range(seed, seed + count):
        draw = random.Random(number)
        what = draw.choice(list(EDITS))
        name, old, new = EDITS[what]
        path = (project.root if what == "source" else project.package) / name
        for kept in (project.cache, project.root / "dist"):
            shutil.rmtree(kept, ignore_errors=True)
        (project.root / "pipeline.lock.yaml").unlink(missing_ok=True)
        try:
            ended = _run_during(project, path, path.read_text().replace(old, new), draw.uniform(0, 0.05))
            check_said(ended)
            check_nothing_wrong(project, clean)
            if project.run().code:
                raise Broken("the next run fails")
            check_converged(project, clean, VARIANT)
        except Broken as broken:
            raise Broken(f"seed {number}: {what}: {broken}") from None
        counts[f"{what}, {'told' if ended.code else 'right'}"] += 1
    return counts


def _run_during(project: WatchedProject, path: Path, text: str, delay: float) -> Ended:
    """Run `doit` with another text in `path`, from when its first step starts until that has written its file."""
    before = path.read_text()
    process = project.launch()
    while process.poll() is None and not list(project.cache.glob("staging/*/spec.json")):
        time.sleep(0.001)
    path.write_text(text)
    while process.poll() is None and not list(project.cache.glob("staging/*/files/text.txt")):
        time.sleep(0.001)
    time.sleep(delay)
    path.write_text(before)
    return Ended(*project.wait(process, f"edited {path.name}"), 0.0)
