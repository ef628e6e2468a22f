"""Hash a step's inputs and code before it runs, and check that neither changed while it ran.

An output is recorded under the digests of its inputs. These must be of the bytes that the step reads, not of those that
were there when the inputs were built. Each input is hashed before the step, once in a run: no hour of work is spent on
rotten bytes, and the page cache has the bytes for the step. After the step, the stamps of all files must be unchanged.
The step's process compares them as well, after it is confined: a folder above an input could be renamed at that moment,
and renamed back later. So every change is detected, also one that was undone. Bytes that rot on the disk while the step
runs are detected by the next run that builds from them.
"""

from __future__ import annotations

from artifacts.errors import StoreError
from artifacts.files.stamps import Stamps, stamps_of
from artifacts.plan.code import Code, forget_code, read_code
from artifacts.plan.plan import Job
from artifacts.plan.step_files import STEPS_PACKAGE, own_step_file
from artifacts.recipe.recipe import NamedSource
from artifacts.run.lookup import Lookup
from artifacts.sources.find import source_content
from artifacts.store.records import Identity


class DamagedError(StoreError):
    """A source or an artifact with other bytes than its digest says. `target` is its full name."""

    def __init__(self, target: str, damage: str) -> None:
        super().__init__(f"{target}: {damage}", f"doit {target}")
        self.target = target


def hash_inputs(lookup: Lookup, job: Job) -> dict[str, Stamps]:
    """Hash a job's inputs, and return the stamps of their files by input name.

    Raises `DamagedError` for an input whose bytes are not those in the job's identity.
    """
    stamps = {}
    for input_name, target in job.inputs.items():
        resolved = lookup.resolved[target]
        try:
            stamps[input_name] = stamps_of(resolved.path)
        except FileNotFoundError as error:
            raise DamagedError(target, f"'{error.filename}' was removed") from None
        if isinstance(lookup.plan.jobs[target], NamedSource):
            if source_content(resolved.path, lookup.store.memory.digest_anew) != resolved.content:
                raise DamagedError(target, f"'{resolved.path}' has other bytes than when it was last hashed")
        elif (damage := lookup.store.damage(resolved.content, anew=True)) is not None:
            raise DamagedError(target, f"its artifact is damaged: {damage}")
    return stamps


def check_inputs(lookup: Lookup, job: Job, before: dict[str, Stamps]) -> None:
    """Raise `StoreError` if a file of an input was touched since `hash_inputs`, even if it was put back."""
    for input_name, target in job.inputs.items():
        try:
            after = stamps_of(lookup.resolved[target].path)
        except FileNotFoundError:
            after = {}
        if after != before[input_name]:
            raise StoreError(f"input '{input_name}' ({target}) changed while the step read it", "run again")


def check_code(lookup: Lookup, job: Job, identity: Identity, before: Code, compiled: dict[str, str]) -> None:
    """Raise `StoreError` if the code of a step was edited since its identity was computed, even if it was put back.

    `before` was read with the identity; `compiled` are the sources that the step's process compiled: {module: sha256}.
    """
    step, memory = f"{STEPS_PACKAGE}.{job.step}", lookup.store.memory
    now = read_code(step, memory)
    for module in compiled.keys() & now.files.keys():
        seen = [code.definitions.get(module) for code in (before, now) if code.files.get(module) == compiled[module]]
        if identity.code.get(module) not in seen:
            forget_code(step, memory)  # its bytes may have rotted; then the remembered digests are wrong
            raise StoreError(f"{module} changed while step '{job.step}' ran", "run again")
    unknown = [name for name in compiled if own_step_file(name) is not None and name not in now.files]
    if unknown:
        raise StoreError(f"step '{job.step}' imports {unknown[0]} in a way that hides it", "import it by its full name")
    if now.definitions != identity.code:
        raise StoreError(f"the code of step '{job.step}' changed while it ran", "run again")
