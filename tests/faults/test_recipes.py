"""No recipe, however broken, is answered with more than two printable lines, or with none in ten seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from faults.fuzz_recipes import run
from faults.lengths import LONG, tell

# `FAULTS=long` tries many; each seed gives the same mutants everywhere.
COUNT = 2000 if LONG else 150


def test_every_mutant_of_a_recipe_is_planned_or_refused_in_two_lines(package: Path) -> None:
    counts = run(COUNT, 1, package)
    tell("recipes", {"planned": counts.planned, "refused": counts.refused, "by doit": counts.by_doit})
    assert not counts.findings, "\n\n".join([*counts.findings, str(counts)])
    assert counts.planned > COUNT // 10
    assert counts.refused > COUNT // 10
    assert counts.by_doit >= COUNT // 60


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ("raise ValueError('a bug')", "ValueError: a bug"),
        ("__import__('time').sleep(99)", "no answer in 3.0 s"),
        ("bytearray(1 << 40)", "MemoryError"),
        ("os.kill(os.getpid(), 11)", "ended by -11"),
        ("print('\\x1b[31m'); raise RecipeError('a', 'b')", "not printable: '\\x1b[31m'"),
        ("raise InvalidCommand('one line')", "not two lines: one line"),
    ],
)
def test_the_harness_finds_what_an_engine_may_not_do(tmp_path: Path, package: Path, fault: str, found: str) -> None:
    shutil.copytree(package, tmp_path / "package")
    plan = tmp_path / "package" / "artifacts" / "plan" / "plan.py"
    sabotaged = f"import os\nfrom doit.exceptions import InvalidCommand\ndef plan_of(*_args, **_more): {fault}\n"
    plan.write_text(plan.read_text() + sabotaged)
    counts = run(1, 1, tmp_path / "package", seconds=3.0)
    assert len(counts.findings) == 1
    assert found in counts.findings[0]
