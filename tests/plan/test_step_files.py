"""Steps are files: those of the package, and those in the project's own folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import artifacts.steps
from artifacts.errors import RecipeError
from artifacts.plan.step_files import known_steps, load_step, module_path, own_step_file, own_steps_folder

STEP = '''"""A step of this project."""
from artifacts.params import StepParams
TOOLS = ()
class Params(StepParams):
    pass
def run(out, params, *, text):
    return {}
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a step `mine_of_a_test` and a module that is none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(artifacts.steps, "__path__", list(artifacts.steps.__path__))
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "mine_of_a_test.py").write_text(STEP)
    (tmp_path / "steps" / "_helpers.py").write_text("")
    (tmp_path / "steps" / "more").mkdir()
    (tmp_path / "steps" / "more" / "texts.py").write_text("")
    return tmp_path


def test_the_steps_of_the_package_are_the_files_in_their_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert own_steps_folder() is None
    assert "shard_weights" in known_steps()
    assert "__init__" not in known_steps()


def test_a_project_has_steps_of_its_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(known_steps()) >= {"mine_of_a_test", "shard_weights"}
    assert "_helpers" not in known_steps()
    module = load_step("mine_of_a_test")
    monkeypatch.delitem(sys.modules, module.__name__)
    assert (module.__name__, module.__file__) == (
        "artifacts.steps.mine_of_a_test",
        f"{project}/steps/mine_of_a_test.py",
    )


def test_their_files_are_told_from_those_of_the_package(project: Path) -> None:
    assert own_step_file("artifacts.steps.mine_of_a_test") == project / "steps" / "mine_of_a_test.py"
    assert own_step_file("artifacts.steps._helpers") == project / "steps" / "_helpers.py"
    assert own_step_file("artifacts.steps.more.texts") == project / "steps" / "more" / "texts.py"
    assert own_step_file("artifacts.steps.shard_weights") is own_step_file("artifacts.errors") is None
    assert module_path("artifacts.steps.mine_of_a_test") == "steps/mine_of_a_test.py"
    assert module_path("artifacts.steps.shard_weights") == "artifacts/steps/shard_weights.py"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("import nothing_of_the_kind", "ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("def run(:", "SyntaxError"),
        ("TOOLS = ()", r"TypeError: it has no class Params\(StepParams\)"),
    ],
)
def test_a_broken_step_is_told_with_its_file(
    project: Path, monkeypatch: pytest.MonkeyPatch, text: str, fault: str
) -> None:
    (project / "steps" / "broken_of_a_test.py").write_text(text)
    with pytest.raises(RecipeError, match=f"step 'broken_of_a_test' cannot be loaded: {fault}") as caught:
        load_step("broken_of_a_test")
    monkeypatch.delitem(sys.modules, "artifacts.steps.broken_of_a_test", raising=False)
    assert caught.value.fix == "correct steps/broken_of_a_test.py"


def test_a_name_of_the_package_is_taken(project: Path) -> None:
    (project / "steps" / "shard_weights.py").write_text(STEP)
    with pytest.raises(
        RecipeError, match=r"steps/shard_weights.py: 'shard_weights' is the name of a step of the package"
    ):
        known_steps()
