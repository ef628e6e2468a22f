"""A user's own step, a file in their project, works as ours do."""

from __future__ import annotations

import pytest

from small_project import Project

STEP = '''"""Count the lines of a text."""
from pathlib import Path
from pydantic import Field
from artifacts.params import StepParams
from artifacts.steps.texts.lines import lines_of

TOOLS = ()

class Params(StepParams):
    start: int = Field(0, ge=0)

def run(out: Path, params: Params, *, text: Path) -> dict[str, int]:
    lines = params.start + len(lines_of(text))
    (out / "lines.txt").write_text(str(lines))
    return {"lines": lines}
'''
HELPER = "def lines_of(text):\n    return (text / 'text.txt').read_text().splitlines()\n"


@pytest.fixture
def with_own_step(project: Project) -> Project:
    (project.root / "steps" / "texts").mkdir(parents=True)
    (project.root / "steps" / "count_lines.py").write_text(STEP)
    (project.root / "steps" / "texts" / "lines.py").write_text(HELPER)
    project.replace("layouts:", "  lines: {step: count_lines, inputs: {text: second}, params: {start: 1}}\nlayouts:")
    return project


def test_it_is_listed_built_and_shown(with_own_step: Project) -> None:
    assert "lines    Count the lines of a text.\n" in with_own_step.doit("list").out
    ended = with_own_step.doit("lines")
    assert (ended.code, ended.err) == (0, "")
    assert (with_own_step.cache / "small" / "lines" / "lines.txt").read_text() == "4"
    assert "all unchanged" in with_own_step.doit("lines").out
    assert "start" in with_own_step.doit("step", "count_lines", "--help").out


def test_its_params_are_checked_with_their_place(with_own_step: Project) -> None:
    with_own_step.replace("start: 1", "start: -1")
    ended = with_own_step.doit("lines")
    assert ended.code == 3
    assert "targets.lines.params.start: must be at least 0, got -1\n  fix: use 0 or more" in ended.err


def test_its_code_is_in_the_identity_also_what_it_imports(with_own_step: Project) -> None:
    assert with_own_step.doit("lines").code == 0
    for name, text in (
        ("count_lines.py", STEP.replace("params.start +", "1 + params.start +")),
        ("texts/lines.py", HELPER + "X = 1\n"),
    ):
        path = with_own_step.root / "steps" / name
        path.write_text(text)
        told = with_own_step.doit("why", "lines").out
        assert f"steps/{name}: " in told
        assert "artifacts/steps/" not in told
        assert "built small:lines" in with_own_step.doit("lines").out
    assert (with_own_step.cache / "small" / "lines" / "lines.txt").read_text() == "5"


def test_a_mistake_in_its_file_is_told_with_the_file(with_own_step: Project) -> None:
    (with_own_step.root / "steps" / "count_lines.py").write_text("import nothing_of_the_kind\n")
    ended = with_own_step.doit("lines")
    assert ended.code == 3
    assert (
        "step 'count_lines' cannot be loaded: ModuleNotFoundError: No module named 'nothing_of_the_kind'" in ended.err
    )
    assert ended.err.endswith("  fix: correct steps/count_lines.py\n")
