"""Hash a step's inputs and code before it runs, and hold both to that while it runs.

An output is recorded under the digests of its inputs, so these must be of the bytes that the step reads, not of those
that were there when the inputs were made. Each input is hashed before the step, once in a run: an hour of work is not
spent on rotten bytes, and what was hashed moments ago is in the page cache for the step. After the step, the stamps
of all files must be those of before. The step's process compares them as well, once it is confined to the files that
it can open: a folder above an input may have another's name just then, and its own again later. So a change by anyone
is met, also one that was undone; bytes that rot on the disk while the step runs are met by the next run that builds
from them.
"""

from __future__ import annotations

from artifacts.errors import StoreError
from artifacts.files.stamps import Stamps, stamps_of
from artifacts.plan.code import Code, forget_code, read_code
from artifacts.plan.plan import STEPS, Job
from artifacts.recipe.recipe import NamedSource
from artifacts.run.lookup import Lookup
from artifacts.sources.find import source_content
from artifacts.store.records import Identity


class DamagedError(StoreError):
    """A source, or an artifact, has other bytes than was believed. `target` is its full name."""

    def __init__(self, target: str, damage: str) -> None:
        super().__init__(f"{target}: {damage}", f"doit {target}")
        self.target = target


def hash_inputs(lookup: Lookup, job: Job) -> dict[str, Stamps]:
    """Hash a job's inputs, and return the stamps of their files, by the step's names for the inputs.

    Raises `DamagedError` for an input that has other bytes than those that the job's identity names.
    """
    stamps = {}
    for given, name in job.inputs.items():
        known = lookup.resolved[name]
        try:
            stamps[given] = stamps_of(known.path)
        except FileNotFoundError as error:
            raise DamagedError(name, f"'{error.filename}' is not there any more") from None
        if isinstance(lookup.plan.jobs[name], NamedSource):
            if source_content(known.path, lookup.store.memory.digest_anew) != known.content:
                raise DamagedError(name, f"'{known.path}' has other bytes than when it was last hashed")
        elif (damage := lookup.store.damage(known.content, anew=True)) is not None:
            raise DamagedError(name, f"its artifact is damaged: {damage}")
    return stamps


def hold_inputs(lookup: Lookup, job: Job, before: dict[str, Stamps]) -> None:
    """Raise `StoreError` if a file of an input was touched since `hash_inputs`, even if it was put back."""
    for given, name in job.inputs.items():
        try:
            after = stamps_of(lookup.resolved[name].path)
        except FileNotFoundError:
            after = {}
        if after != before[given]:
            raise StoreError(f"input '{given}' ({name}) changed while the step read it", "run again")


def hold_code(lookup: Lookup, job: Job, identity: Identity, before: Code, compiled: dict[str, str]) -> None:
    """Raise `StoreError` if the code of a step was edited meanwhile, even if it was put back.

    `before` was read with the identity; `compiled` is what the step's process has compiled, as {module: sha256}.
    """
    step, memory = f"{STEPS}.{job.step}", lookup.store.memory
    now = read_code(step, memory)
    for module in compiled.keys() & now.files.keys():
        seen = [code.definitions.get(module) for code in (before, now) if code.files.get(module) == compiled[module]]
        if identity.code.get(module) not in seen:
            forget_code(step, memory)  # or its bytes rotted, and the memory of them is wrong
            raise StoreError(f"{module} changed while step '{job.step}' ran", "run again")
    if now.definitions != identity.code:
        raise StoreError(f"the code of step '{job.step}' changed while it ran", "run again")
