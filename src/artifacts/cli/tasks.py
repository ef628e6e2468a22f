"""What doit sees: a task for each source, target and layout of the recipes asked for, and a reporter in our words."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from doit.exceptions import InvalidDodoFile, TaskFailed, UnmetDependency

from artifacts.cli.report import Report, fall_silent, print_summary
from artifacts.errors import ArtifactsError, RecipeError, printable
from artifacts.plan.plan import Job, Plan, load_plan
from artifacts.run.build import Build, Outcome
from artifacts.run.memory_budget import free_bytes
from artifacts.run.run_step import StepCrashError


class Session:
    """One `doit` command: the plan, the build, and what it says."""

    words: ClassVar[list[str] | None] = None
    """What the command line speaks of: other recipes are not read. None: all are. The command says it before doit
    imports the dodo file, which makes the session."""

    @classmethod
    def of_doit(cls) -> Session:
        """The session of a dodo file. Raises `InvalidDodoFile` if nothing tells doit this project's commands.

        doit reads the pyproject.toml of the folder it is called in: from elsewhere (`-f`), it knows its own commands.
        """
        if "artifacts.cli.command_line" not in sys.modules and not Path("pyproject.toml").is_file():
            fact = "pyproject.toml, which tells doit this project's commands, is missing"
            raise InvalidDodoFile(str(RecipeError(fact, "put back the pyproject.toml of this project")))
        return cls()

    def __init__(self) -> None:
        try:
            self.plan: Plan = load_plan(words=self.words)
        except ArtifactsError as error:
            raise InvalidDodoFile(str(error)) from None
        self.report = Report()
        self.build = Build(self.plan, self.report, free_bytes)

    @property
    def doit_config(self) -> dict[str, Any]:
        """`DOIT_CONFIG` for a dodo file."""
        return {
            "default_tasks": [self.plan.pipeline.default],
            "reporter": DoitReporter(self),
            "par_type": "thread",
            # The store knows what is current; a second truth in doit's own database could only be lost, torn or locked.
            "backend": "sqlite3",
            "dep_file": ":memory:",
            "sort": "definition",
            "verbosity": 2,
        }

    def tasks(self) -> Iterator[dict[str, Any]]:
        """Task dictionaries: each recipe, `<recipe>:<target>` for those read, `<target>` alone for the default's."""
        for recipe, file in self.plan.pipeline.recipes.items():
            yield {"basename": recipe, "name": None, "doc": printable(f"All of recipe {file}")}
        for full_name, job in self.plan.jobs.items():
            yield {
                "basename": job.loaded.name,
                "name": job.name,
                "doc": printable(job.doc),
                "actions": [(self._make(full_name), [])],
                "task_dep": list(job.inputs.values()) if isinstance(job, Job) else [],
                "targets": [str(self.build.there.pointer(full_name).manifest_file)],
                "uptodate": [self._is_current(full_name)],
                "io": {"capture": False},
            }
        for full_name, job in self.plan.jobs.items():
            if isinstance(job, Job) and job.loaded.name == self.plan.pipeline.default:
                yield {"basename": job.name, "doc": job.doc, "actions": None, "task_dep": [full_name]}

    def _is_current(self, full_name: str) -> Callable[[], bool]:
        return lambda: self.build.is_current(full_name)

    def _make(self, full_name: str) -> Callable[[], TaskFailed | None]:
        def make() -> TaskFailed | None:
            try:
                self.build.make(full_name)
            except ArtifactsError as error:
                return TaskFailed(str(error))
            except StepCrashError as error:
                log = "\n".join(printable(line) for line in str(error).splitlines())
                return TaskFailed(f"{full_name}: its step crashed, which is a bug\n{log}")
            return None

        return make


class DoitReporter:
    """Takes doit's events; the build itself reports what happens to targets, so most of them say nothing here."""

    desc = "progress while steps run, a table at the end, two lines for each mistake"

    def __init__(self, session: Session) -> None:
        self._session = session
        self._selected: list[str] = []
        self._errors: list[str] = []
        self._started = time.monotonic()

    def initialize(self, tasks: dict[str, Any], selected_tasks: list[str]) -> None:
        """Note what is to be made; a run that finds nothing to do says one line, at its end."""
        self._selected = self._session.plan.selected(selected_tasks)

    def get_status(self, task: Any) -> None:
        """Looked at."""

    def execute_task(self, task: Any) -> None:
        """About to be made."""

    def add_success(self, task: Any) -> None:
        """Made, and told by the build."""

    def skip_uptodate(self, task: Any) -> None:
        """Current, and counted by the build."""

    def skip_ignore(self, task: Any) -> None:
        """Never: `doit ignore` is refused."""

    def teardown_task(self, task: Any) -> None:
        """No task has a teardown."""

    def add_failure(self, task: Any, fail: Any) -> None:
        """Remember a failure for the end of the run, where it will not scroll away."""
        if not isinstance(fail, UnmetDependency):  # which the table shows as not tried
            self._errors.append(fail.message if isinstance(fail, TaskFailed) else fail.get_msg())

    def cleanup_error(self, exception: Any) -> None:
        """An error of doit's own."""
        self._errors.append(exception.get_msg())

    def runtime_error(self, msg: str) -> None:
        """An error of doit's own."""
        self._errors.append(msg)

    def complete_run(self) -> None:
        """The table, then what went wrong."""
        self._session.report.close()
        self._session.build.close()
        try:
            self._say_what_happened()
        except BrokenPipeError:
            fall_silent()
        for error in self._errors:
            print(error, file=sys.stderr)

    def _say_what_happened(self) -> None:
        outcomes = self._session.build.outcomes
        rows = [outcomes.get(name) or Outcome(name, "not tried") for name in self._selected]
        print_summary(rows, time.monotonic() - self._started)
        if any(row.what != "unchanged" for row in rows):
            self._say_where(rows)
        sys.stdout.flush()

    def _say_where(self, rows: list[Outcome]) -> None:
        for row in rows:
            job = self._session.plan.jobs[row.target]
            if isinstance(job, Job) and job.is_layout and row.what in ("built", "restored", "unchanged"):
                print(printable(f"laid out: {self._session.build.there.place_in_dist(job)}"))
