"""Seeded mutants of recipes, pipelines and lock files, each planned by the real engine in a process within bounds.

A mutant is planned, or refused in two printable lines. All else is a finding: a traceback, a hang, memory, odd output.
`python -m faults.fuzz_recipes [COUNT [SEED]]`, from `tests/`, prints the counts and what was found.
"""

from __future__ import annotations

import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from faults.recipe_mutants import mutants
from small_project import make_package

MOST_BYTES = 2 << 30
MOST_SECONDS = 10.0
# One of so many mutants also goes through the `doit` executable, which takes a second.
THROUGH_DOIT = 60

# Each command in this very process; what it prints and raises is judged by `_judge`.
WORKER = """
import contextlib, io, json, os, sys, traceback
from doit.exceptions import InvalidCommand, InvalidDodoFile
from artifacts.cli.commands import DryRun, Verify, Why
from artifacts.cli.tasks import Session
for line in sys.stdin:
    os.chdir(json.loads(line))
    said, end, refused = io.StringIO(), "", False
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            for task in Session().tasks():
                print(task["doc"])
            for command in (DryRun, Why, Verify):
                command().execute({}, [])
    except (InvalidCommand, InvalidDodoFile) as error:
        end, refused = str(error), True
    except BaseException:
        end = traceback.format_exc()
    print(json.dumps([refused, end, said.getvalue()]), flush=True)
"""


@dataclass
class Counts:
    """How many mutants were planned and refused, how many of them by `doit` too, and what was found."""

    planned: int = 0
    refused: int = 0
    by_doit: int = 0
    findings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        found = f"{self.planned} planned, {self.refused} refused, {len(self.findings)} findings"
        return f"{self.planned + self.refused + len(self.findings)} mutants: {found}; {self.by_doit} by doit too"


def run(count: int, seed: int, package: Path | None = None, seconds: float = MOST_SECONDS) -> Counts:
    """Try `count` mutants. `package` is a folder that contains the package `artifacts`, by default a copy of ours."""
    counts = Counts()
    with tempfile.TemporaryDirectory() as scratch:
        worker = _Worker(package or make_package(Path(scratch) / "package"), seconds)
        try:
            for number, mutant in enumerate(mutants(random.Random(seed), count)):
                project = Path(scratch) / "project"
                mutant.write(project)
                found = _count(counts, *worker.plan(project))
                if found is None and number % THROUGH_DOIT == 0:
                    counts.by_doit += 1
                    found = _by_doit(project, worker.environment)
                if found is not None:
                    counts.findings.append(f"seed {seed}, mutant {number}: {mutant.told}\n{found[-3000:]}")
                shutil.rmtree(project)
        finally:
            worker.end()
    return counts


def _count(counts: Counts, refused: bool, end: str, said: str) -> str | None:
    found = _judge(end, said)
    if found is None:
        counts.refused += refused
        counts.planned += not refused
    return found


def _judge(end: str, said: str) -> str | None:
    """What is wrong with the error that ended a command, and with what it printed; None if nothing is."""
    lines = end.splitlines()
    if end and (len(lines) != 2 or not lines[1].startswith("  fix: ") or max(map(len, lines)) > 1100):
        return f"not two lines: {end}"
    for line in (*lines, *said.split("\n")):
        if not line.isprintable():
            return f"not printable: {line!r}"
    return None


def _by_doit(project: Path, environment: dict[str, str]) -> str | None:
    for words in (["plan"], ["list", "--all"]):
        command = [sys.executable, "-m", "doit", *words]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=60)
        wrong = _judge(done.stderr.removesuffix("\n"), done.stdout)
        if wrong is not None or (done.returncode == 0) != (done.stderr == ""):
            return f"doit {' '.join(words)} ends with {done.returncode}: {wrong}"
    return None


class _Worker:
    """A process that plans one project after the other, within bounds; started anew when it had to be killed."""

    def __init__(self, package: Path, seconds: float) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV", "HF_"))}
        self.environment = kept | {"PYTHONPATH": str(package), "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None

    def plan(self, project: Path) -> tuple[bool, str, str]:
        """Whether a project was refused, the error that ended it or "", and what was printed."""
        process = self._process or self._start()
        pipes: tuple[IO[Any] | None, IO[Any] | None] = (process.stdin, process.stdout)
        assert pipes[0] is not None
        assert pipes[1] is not None
        pipes[0].write(json.dumps(str(project)) + "\n")
        pipes[0].flush()
        ready, _, _ = select.select([pipes[1]], [], [], self._seconds)
        answer = pipes[1].readline() if ready else ""
        if not answer:
            self.end()
            code = process.returncode
            return False, f"no answer in {self._seconds} s" if code == -signal.SIGKILL else f"ended by {code}", ""
        refused, end, said = json.loads(answer)
        return refused, end, said

    def end(self) -> None:
        """Kill the process."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        resource.prlimit(self._process.pid, resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        resource.prlimit(self._process.pid, resource.RLIMIT_CORE, (0, 0))
        return self._process


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    total = run(given[0] if given else 2000, given[1] if len(given) > 1 else 0)
    print(*total.findings, total, sep="\n\n")
    sys.exit(bool(total.findings))
