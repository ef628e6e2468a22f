"""doit's view of the project: a task for each source, target and layout, and a reporter."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidDodoFile, TaskFailed, UnmetDependency

from artifacts.cli.interrupts import hold_signals
from artifacts.cli.options import UserError
from artifacts.cli.progress import Progress
from artifacts.cli.standard_streams import prepare_streams
from artifacts.cli.tables import print_summary
from artifacts.errors import ArtifactsError, RecipeError, printable
from artifacts.plan.plan import Job, Plan, plan_of
from artifacts.recipe.pipeline import load_pipeline
from artifacts.recipe.recipe import LoadedRecipe
from artifacts.run.build import Build
from artifacts.run.dry_run import expected_seconds
from artifacts.run.failure import written_log
from artifacts.run.memory import free_bytes
from artifacts.run.outcome import Outcome
from artifacts.run.run_step import StepCrashError
from artifacts.store.journal import Status

LOADER = "artifacts.cli.loader"
MOST_NAMES = 4
LAID_OUT = (Status.BUILT, Status.RESTORED, Status.UNCHANGED)


class Session:
    """One `doit` command: its plan, its build, and its progress. `load` comes first, and doit's loader calls it."""

    plan: Plan
    build: Build

    def __init__(self) -> None:
        """Read pipeline.yaml. Raises `UserError`; InvalidDodoFile unless pyproject.toml has named our loader to doit.

        doit reads the pyproject.toml of the folder that it is called in. From elsewhere (`-f`) it does not know us.
        """
        prepare_streams()  # from elsewhere, doit's own loader did not
        if LOADER not in sys.modules and not Path("pyproject.toml").is_file():
            fact = "pyproject.toml, which tells doit this project's commands, is missing"
            raise InvalidDodoFile(str(RecipeError(fact, "put back the pyproject.toml of this project")))
        try:
            self.pipeline = load_pipeline()
        except ArtifactsError as error:
            raise UserError(error) from None
        self.progress = Progress()

    def load(self, words: list[str] | None) -> None:
        """Read the recipes that the words refer to; all of them for None. Raises `UserError`."""
        try:
            self.plan = plan_of(self.pipeline, words=words)
        except ArtifactsError as error:
            raise UserError(error) from None
        self.build = Build(self.plan, self.progress, free_bytes)

    @property
    def doit_config(self) -> dict[str, Any]:
        """`DOIT_CONFIG` for a dodo file."""
        return {
            "default_tasks": [self.pipeline.default],
            "reporter": DoitReporter(self),
            "par_type": "thread",
            # The store knows what is current. A second record in doit's own database could be lost, torn or locked.
            "backend": "sqlite3",
            "dep_file": ":memory:",
            "sort": "definition",
            "verbosity": 2,
        }

    def tasks(self) -> Iterator[dict[str, Any]]:
        """Task dictionaries: each recipe, `<recipe>:<target>` for those read, `<target>` alone for the default's."""
        if not hasattr(self, "plan"):  # doit's own loader, which runs from another folder, passes no words
            self.load(None)
        loaded = {job.loaded.name: job.loaded for job in self.plan.jobs.values()}
        for recipe, file in self.pipeline.recipes.items():
            yield {"basename": recipe, "name": None, "doc": printable(self._doc_of(loaded.get(recipe), file))}
        for full_name, job in self.plan.jobs.items():
            yield {
                "basename": job.loaded.name,
                "name": job.name,
                "doc": printable(job.doc),
                "actions": [(self._make(full_name), [])],
                "task_dep": list(job.inputs.values()) if isinstance(job, Job) else [],
                "targets": [str(self.build.lookup.link_of(full_name).manifest_file)],
                "uptodate": [self._is_current(full_name)],
                "io": {"capture": False},
            }
        for full_name, job in self.plan.jobs.items():
            if isinstance(job, Job) and job.loaded.name == self.pipeline.default:
                yield {"basename": job.name, "doc": printable(job.doc), "actions": None, "task_dep": [full_name]}

    def _doc_of(self, recipe: LoadedRecipe | None, file: Path) -> str:
        """Return what the name of a recipe builds; None is a recipe that this command does not read."""
        if recipe is None:
            return f"Targets of {file}"
        if recipe.recipe.default is None:
            return f"All targets of {file}"
        names = [self.plan.jobs[name].name for name in self.plan.meant(recipe.name)]
        return f"builds {', '.join(names[:MOST_NAMES])}{', …' if len(names) > MOST_NAMES else ''}"

    def _is_current(self, full_name: str) -> Callable[[], bool]:
        return lambda: self.build.is_current(full_name)

    def _make(self, full_name: str) -> Callable[[], TaskFailed | None]:
        def make() -> TaskFailed | None:
            try:
                self.build.ensure(full_name)
            except ArtifactsError as error:
                return TaskFailed(str(error))
            except StepCrashError as error:
                return TaskFailed("\n".join(self._crash(full_name, error)))
            return None

        return make

    def _crash(self, full_name: str, error: StepCrashError) -> Iterator[str]:
        yield f"{full_name}: its step crashed, which is a bug"
        yield from map(printable, str(error).splitlines())
        job = self.plan.jobs[full_name]
        if isinstance(job, Job) and (log := written_log(self.build.lookup.log_of(job))):
            yield printable(f"  log: {log}")


class DoitReporter:
    """doit's reporter: a table at the end, then the errors. The build itself tells `Progress` what happens before."""

    desc = "progress while steps run, a table at the end, two lines for each mistake"

    def __init__(self, session: Session) -> None:
        self._session = session
        self._selected: list[str] = []
        self._errors: list[str] = []
        self.has_own_error = False  # one of doit itself, not of a target
        self.is_open = False  # between `initialize` and `complete_run`
        self._started = time.monotonic()

    def initialize(self, tasks: dict[str, Any], selected_tasks: list[str]) -> None:
        """Note the targets of this run."""
        self.is_open = True
        plan = self._session.plan
        self._selected = plan.selected(selected_tasks)
        self._session.progress.begin(len(self._selected), lambda: expected_seconds(plan, selected_tasks))

    def get_status(self, task: Any) -> None:
        """Do nothing: doit looks at the task."""

    def execute_task(self, task: Any) -> None:
        """Do nothing: the build tells when a step starts."""

    def add_success(self, task: Any) -> None:
        """Do nothing: the build tells when a target ends."""

    def skip_uptodate(self, task: Any) -> None:
        """Count a target that is current."""
        if task.name in self._session.plan.jobs:
            self._session.progress.unchanged()

    def skip_ignore(self, task: Any) -> None:
        """Do nothing: `doit ignore` is disabled."""

    def teardown_task(self, task: Any) -> None:
        """Do nothing: no task has a teardown."""

    def add_failure(self, task: Any, fail: Any) -> None:
        """Keep an error for the end of the run, where it does not scroll away."""
        if not isinstance(fail, UnmetDependency):  # the table shows it as not tried
            self._errors.append(fail.message if isinstance(fail, TaskFailed) else fail.get_msg())
            self.has_own_error |= not isinstance(fail, TaskFailed)

    def cleanup_error(self, exception: Any) -> None:
        """Keep an error of doit's own."""
        self.has_own_error = True
        self._errors.append(exception.get_msg())

    def runtime_error(self, msg: str) -> None:
        """Keep an error of doit's own."""
        self.has_own_error = True
        self._errors.append(msg)

    def complete_run(self) -> None:
        """Print the table, then the errors. A signal waits until they are printed."""
        with hold_signals():
            self.is_open = False
            self._session.progress.close()
            self._session.build.close()
            self._print_summary()
            for error in self._errors:
                print(error, file=sys.stderr)

    def _print_summary(self) -> None:
        outcomes = self._session.build.outcomes
        rows = [outcomes.get(name) or Outcome(name, Status.NOT_TRIED) for name in self._selected]
        jobs = self._session.plan.jobs.items()
        headlines = {name: job.headline for name, job in jobs if isinstance(job, Job)}
        print_summary(rows, time.monotonic() - self._started, headlines)
        if any(row.status != Status.UNCHANGED for row in rows):
            self._print_layouts(rows)
        sys.stdout.flush()

    def _print_layouts(self, rows: list[Outcome]) -> None:
        for row in rows:
            job = self._session.plan.jobs[row.target]
            if isinstance(job, Job) and job.is_layout and row.status in LAID_OUT:
                print(printable(f"laid out: {self._session.build.lookup.layout_folder(job)}"))
