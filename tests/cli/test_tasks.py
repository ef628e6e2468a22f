from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doit.exceptions import TaskFailed, UnmetDependency

from artifacts.cli.options import UserError
from artifacts.cli.tasks import DoitReporter, Session
from small_model import MODEL_RECIPE, write_pipeline


@pytest.fixture(autouse=True)
def settings(here: object) -> None:
    """The file that names our commands to doit: with it, a project is loaded before `cli.loader` is."""
    Path("pyproject.toml").touch()


def loaded(words: list[str] | None = None) -> Session:
    """The session of the project in the working folder, its recipes read."""
    session = Session()
    session.load(words)
    return session


def test_every_target_is_a_task_and_the_default_recipe_s_have_short_names() -> None:
    tasks = list(loaded().tasks())
    names = [f"{task['basename']}:{task['name']}" if task.get("name") else task["basename"] for task in tasks]
    assert names == [
        "small", "small:model", "small:shards", "small:again", "small:flat", "shards", "again", "flat",
    ]  # fmt: skip


def test_a_task_follows_the_tasks_of_its_inputs_and_has_the_step_s_first_line() -> None:
    tasks = {task.get("name"): task for task in loaded().tasks()}
    assert tasks["again"]["task_dep"] == ["small:shards"]
    assert tasks["again"]["doc"].startswith("Spread a model's weights")
    assert tasks["model"]["task_dep"] == []


@pytest.mark.parametrize(
    ("default", "doc"),
    [
        ("", "All targets of recipes/small.yaml"),
        ("default: [shards, flat]\n", "builds shards, flat"),
        ("default: [shards, again, a, b, flat]\n", "builds shards, again, a, b, …"),
    ],
)
def test_a_recipe_says_what_its_name_builds(default: str, doc: str) -> None:
    more = "".join(f"  {name}: {{step: shard_weights, inputs: {{model: model}}}}\n" for name in ("a", "b"))
    write_pipeline(default + MODEL_RECIPE.replace("layouts:\n", f"{more}layouts:\n"))
    Path("recipes/other.yaml").write_text("targets: {a: {step: nothing}}\n")
    docs = {task["basename"]: task["doc"] for task in loaded([]).tasks() if task.get("name", "") is None}
    assert docs == {"small": doc, "other": "Targets of recipes/other.yaml"}


def test_doit_keeps_nothing_of_its_own_and_works_in_threads() -> None:
    config = Session().doit_config
    assert (config["dep_file"], config["par_type"], config["default_tasks"]) == (":memory:", "thread", ["small"])
    assert isinstance(config["reporter"], DoitReporter)


def test_a_mistake_in_the_recipe_is_told_in_two_lines() -> None:
    Path("recipes/small.yaml").write_text("targets: {a: {step: nothing}}\n")
    with pytest.raises(
        UserError, match=r"recipes/small.yaml:1:21: targets.a.step: no step is called 'nothing'\n  fix: "
    ):
        loaded()


def test_a_task_s_action_fails_with_the_two_lines() -> None:
    session = loaded()
    tasks = {task.get("name"): task for task in session.tasks()}
    make, _ = tasks["again"]["actions"][0]
    failed = make()
    assert isinstance(failed, TaskFailed)
    assert failed.message == "small:again: its input small:shards is not built\n  fix: doit small:shards"
    assert not tasks["again"]["uptodate"][0]()
    session.build.close()


def test_the_reporter_ends_with_the_table_and_then_what_went_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    session = loaded()
    reporter = DoitReporter(session)

    class Task:
        """What the reporter asks of a task."""

        name = "small:shards"

    task: Any = Task()
    reporter.initialize({}, ["again"])
    reporter.get_status(task)
    reporter.execute_task(task)
    reporter.add_failure(task, TaskFailed("it is wrong\n  fix: mend it"))
    reporter.add_failure(task, UnmetDependency("small:shards"))
    reporter.runtime_error("doit says")
    reporter.complete_run()
    said = capsys.readouterr()
    assert said.err == "it is wrong\n  fix: mend it\ndoit says\n"
    rows = [line.split()[0] for line in said.out.splitlines() if line.strip().startswith("small:")]
    assert rows == ["small:model", "small:shards", "small:again"]
    assert said.out.count("not tried") == 4
