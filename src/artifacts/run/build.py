"""Build targets: reuse what is current, restore from the store, or run the step."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from artifacts.errors import ArtifactsError, StepError, StoreError, disk_error
from artifacts.files.atomic import naming, remove
from artifacts.plan.code import Code, read_code
from artifacts.plan.plan import Job, Plan
from artifacts.plan.step_files import STEPS_PACKAGE
from artifacts.recipe.recipe import NamedSource
from artifacts.run.failure import fact_of, naming_log
from artifacts.run.inputs import DamagedError, check_code, check_inputs, hash_inputs
from artifacts.run.lookup import Lookup, ResolvedTarget
from artifacts.run.memory import MemoryBudget
from artifacts.run.outcome import Listener, Outcome
from artifacts.run.publish import is_published, publish
from artifacts.run.run_step import GIB, Limits, StepCrashError, run_step
from artifacts.sources.find import find_source
from artifacts.sources.pins import lock_source, pinned_digest
from artifacts.store.journal import Entry, Journal, Status
from artifacts.store.records import Action, Identity, Manifest, manifest_of

UNKNOWN_PROCESSOR = "a processor that was not recorded"


class Build:
    """A build of a plan's targets. The caller must ask for a target's inputs before the target.

    `free_bytes` is called once, before the first step runs: it returns the memory that the steps may use together.
    """

    def __init__(self, plan: Plan, listener: Listener, free_bytes: Callable[[], int]) -> None:
        self.plan = plan
        self.lookup = Lookup(plan)
        self.store = self.lookup.store
        self.journal = Journal(self.lookup.cache / "journal.jsonl")
        self.outcomes: dict[str, Outcome] = {}
        self._unlocked: set[str] = set()
        self._unconfined: dict[str, tuple[str, ...]] = {}
        self._listener = listener
        self._free_bytes = free_bytes
        self._budget: MemoryBudget | None = None
        self._in_use: IO[str] | None = None
        self._setup_lock = threading.Lock()
        self._repair_lock = threading.RLock()

    def is_current(self, full_name: str) -> bool:
        """Return whether a target is current. If so, note that as its outcome, and lock its sources."""
        job = self.plan.jobs[full_name]
        try:
            manifest = self.lookup.current(full_name)
            if manifest is None:
                return False
            if isinstance(job, Job):
                self._lock_sources(job)
        except (OSError, ArtifactsError):
            return False  # `ensure` raises the same error
        action = self.lookup.actions.get(full_name)
        metrics = action.metrics if action else {}
        measured_on = _measured_on(action, job) if action and isinstance(job, Job) else ""
        size, trusts = manifest.total_bytes, job.trusted.values() if isinstance(job, Job) else ()
        self.outcomes[full_name] = Outcome(
            full_name, Status.UNCHANGED, size, metrics=metrics, measured_on=measured_on, trusts=tuple(trusts)
        )
        return True

    def ensure(self, full_name: str) -> Outcome:
        """Bring a target up to date. Raises `ArtifactsError` (a user's mistake) or `StepCrashError` (a step's bug)."""
        job = self.plan.jobs[full_name]
        self.outcomes[full_name] = Outcome(full_name, Status.INTERRUPTED)  # replaced when it ends
        try:
            with self._setup_lock:
                if self._in_use is None:
                    self._in_use = self.store.use()
            absent = self._absent(job)
            if absent:
                outcome = Outcome(full_name, Status.SKIPPED, absent=absent)
            else:
                outcome = self._find_source(job) if isinstance(job, NamedSource) else self._ensure_job(job)
        except Exception as error:
            self._end(Outcome(full_name, Status.FAILED))
            by_disk = isinstance(error, (OSError, StepCrashError))  # on a full disk, a step cannot write its error
            cause = disk_error(error, self.lookup.cache) if by_disk else None
            if cause is not None:
                raise StoreError(f"{full_name}: {cause.fact}", cause.fix) from None
            with contextlib.suppress(OSError):  # the first error is the one to report
                self.journal.write(Entry(full_name, Status.FAILED, "", error=fact_of(error)))
            raise
        self._end(outcome)
        return outcome

    def close(self) -> None:
        """Write interrupted targets to the journal, release the store, and clear leftovers of killed runs."""
        with contextlib.suppress(OSError):  # a run must be able to end on a full disk
            for outcome in list(self.outcomes.values()):
                if outcome.status == Status.INTERRUPTED:
                    self.journal.write(Entry(outcome.target, Status.INTERRUPTED, ""))
        if self._in_use is not None:
            self._in_use.close()
        # A thread of an interrupted run may still work in its staging folder; a later build clears it.
        if not any(outcome.status == Status.INTERRUPTED for outcome in self.outcomes.values()):
            from artifacts.run.maintenance import clear_leftovers  # so `doit` and `doit list` start sooner

            with contextlib.suppress(ArtifactsError, OSError):
                clear_leftovers(self.lookup)

    def needed_bytes(self, job: Job) -> int | None:
        """Return the memory that a job is expected to need; None if it is unknown.

        It is the target's own declaration; else its peak in earlier builds; else the recipe's value for all targets.
        """
        if job.memory_gib is not None:
            return int(job.memory_gib * GIB)
        for_all = job.loaded.recipe.resources.memory_gib
        return self.journal.peak_bytes(job.full_name) or (int(for_all * GIB) if for_all is not None else None)

    def _absent(self, job: Job | NamedSource) -> tuple[str, ...]:
        """Return the optional sources that a target needs and that are not there, in words."""
        if isinstance(job, NamedSource):
            return (job.absence,) if job.absence else ()
        inputs = [self.outcomes[name] for name in job.inputs.values() if name in self.outcomes]
        return tuple(dict.fromkeys(text for outcome in inputs for text in outcome.absent))

    def _end(self, outcome: Outcome) -> None:
        self.outcomes[outcome.target] = outcome
        self._listener.ended(outcome)

    def _find_source(self, job: NamedSource) -> Outcome:
        name, started = job.full_name, time.monotonic()

        def progress(message: str, done: int | None, total: int | None) -> None:
            self._listener.progressed(name, message, done, total)

        def waiting() -> None:
            progress("waiting: another process fetches it", None, None)

        local = job.declared.is_local
        with contextlib.nullcontext() if local else naming(self.lookup.downloads):
            resolved = find_source(job, self.store.memory, self.lookup.downloads, progress, waiting)
        if pinned_digest(job)[0] is None:
            if any(name in other.inputs.values() for other in self.plan.jobs.values() if isinstance(other, Job)):
                self._unlocked.add(name)
            elif local:
                lock_source(job, resolved.content)  # no step reads this source, so none can refuse it
        with self.store.lock(f"target.{name}"):
            self.lookup.link_of(name).write_manifest(resolved.manifest)
        self.lookup.resolved[name] = ResolvedTarget(resolved.path, resolved.content)
        return Outcome(name, Status.FOUND, resolved.manifest.total_bytes, time.monotonic() - started)

    def _ensure_job(self, job: Job) -> Outcome:
        """Build or restore a target. If an input is damaged, repair that input first."""
        for _ in (job.full_name, *job.inputs):
            try:
                return self._build_or_restore(job)
            except DamagedError as error:
                damaged = error.target
            # No key is locked here: of two jobs with one key, one could wait for a repair that needs the other's lock.
            with self._repair_lock:
                if damaged != job.full_name and self.lookup.current(damaged) is None:
                    self.ensure(damaged)
        return self._build_or_restore(job)

    def _build_or_restore(self, job: Job) -> Outcome:
        code = read_code(f"{STEPS_PACKAGE}.{job.step}", self.store.memory)
        identity = self.lookup.identity(job)
        if identity is None:
            missing = self.lookup.unresolved_inputs(job)[0]
            raise StoreError(f"{job.full_name}: its input {missing} is not built", f"doit {missing}")
        key = identity.key

        def waiting() -> None:
            self._listener.progressed(job.full_name, "waiting: another process builds the same artifact", None, None)

        with self.store.lock(key, waiting):
            state = self.lookup.artifact(job, identity)
            if state.action is None or state.damage is not None:
                status, action = Status.BUILT, self._build(job, identity, code, key, state.damage)
            else:
                status, action = Status.RESTORED if state.shown is None else Status.UNCHANGED, state.action
            why = self.lookup.why_restored(job, identity)
            size = self._link_and_lay_out(job, key, action)
        self._lock_sources(job)
        if status == Status.RESTORED:
            self.journal.write(Entry(job.full_name, status, key, why, job.step, size))
        seconds, peak = (action.seconds, action.peak_bytes) if status == Status.BUILT else (0.0, 0)
        return Outcome(
            job.full_name, status, size, seconds, peak, action.metrics, _measured_on(action, job),
            trusts=tuple(job.trusted.values()), unconfined=self._unconfined.get(job.full_name, ()),
        )  # fmt: skip

    def _lock_sources(self, job: Job) -> None:
        """Write a job's unpinned sources to the lock file: a step has accepted their bytes."""
        for name in job.inputs.values():
            source = self.plan.jobs[name]
            if isinstance(source, NamedSource) and name in self._unlocked:
                lock_source(source, self.lookup.resolved[name].content)

    def _link_and_lay_out(self, job: Job, key: str, action: Action) -> int:
        """Point the target's path at an artifact, and copy a layout to `dist/`. Return the artifact's size in bytes."""
        manifest = self.store.manifest(action.content)
        if manifest is None:
            raise StoreError(f"{job.full_name}: its artifact was removed during the build", "run again")
        with self.store.lock(f"target.{job.full_name}"):
            self.lookup.link_of(job.full_name).point(key, self.store.files(action.content), manifest)
            folder = self.lookup.layout_folder(job)
            if job.is_layout and not is_published(self.store, folder, manifest):
                self._publish(job, action, manifest, folder)
        self.lookup.resolve_to(job.full_name, action)
        return manifest.total_bytes

    def _publish(self, job: Job, action: Action, manifest: Manifest, folder: Path) -> None:
        difference = publish(self.store, self.store.files(action.content), manifest, folder)
        if difference is None:
            return
        damage = self.store.damage(action.content, anew=True)
        if damage is not None:
            raise DamagedError(job.full_name, f"its artifact is damaged: {damage}")
        raise StoreError(
            f"'{folder}': its copy differs from the artifact: {difference}", "check the disk, then run again"
        )

    def _build(self, job: Job, identity: Identity, code: Code, key: str, damage: str | None) -> Action:
        name = job.full_name
        why = self.lookup.why_built(job, identity, damage)
        inputs = {input_name: self.lookup.resolved[source].path for input_name, source in job.inputs.items()}
        log = self.lookup.log_of(job)

        def progress(message: str, done: int | None, total: int | None) -> None:
            self._listener.progressed(name, message, done, total)

        with self._memory().reserve(self.needed_bytes(job)):
            self._listener.started(name, why)
            staging = self.store.stage(key)
            try:
                limits = Limits(job.minutes, job.silent_minutes)
                progress("hashing its inputs", None, None)
                stamps = hash_inputs(self.lookup, job)
                try:
                    with naming(staging):
                        result = run_step(
                            staging, log, job.step, job.params, inputs, job.tools, progress, limits, job.trusted, stamps
                        )
                except (StepError, StepCrashError) as error:
                    check_inputs(self.lookup, job, stamps)  # the sandbox hides a replaced input from the step
                    raise naming_log(error, log) from None
                self._unconfined[name] = result.unconfined
                check_inputs(self.lookup, job, stamps)
                check_code(self.lookup, job, identity, code, result.compiled)
                manifest = manifest_of(result.files)
                took = (result.seconds, result.peak_bytes, result.processor)
                action = Action(identity, manifest.content, result.metrics, *took)
                self.store.seal(key, staging, manifest, action)
            except DamagedError:
                raise
            except ArtifactsError as error:
                raise type(error)(f"{name}: {error.fact}", error.fix) from None
            finally:
                with contextlib.suppress(OSError):
                    remove(staging)
        size = manifest.total_bytes
        self.journal.write(Entry(name, Status.BUILT, key, why, job.step, size, result.seconds, result.peak_bytes))
        return action

    def _memory(self) -> MemoryBudget:
        with self._setup_lock:
            if self._budget is None:
                self._budget = MemoryBudget(self._free_bytes())
            return self._budget


def _measured_on(action: Action, job: Job) -> str:
    """Return the processor of a measurement; an empty text for a step whose output does not depend on it."""
    return (action.processor or UNKNOWN_PROCESSOR) if job.depends_on_processor else ""
