"""`doit pin`: a source that was replaced on purpose gets a new pin."""

from __future__ import annotations

from functools import partial

from artifacts.cli.commands import PlanCommand
from artifacts.cli.progress import Progress
from artifacts.errors import RecipeError, printable
from artifacts.files.atomic import naming
from artifacts.plan.plan import Plan, is_pattern
from artifacts.recipe.recipe import NamedSource
from artifacts.run.lookup import Lookup
from artifacts.sources.pins import LOCK_FILE

EXAMPLE = "name one: doit pin checkpoint"


class Pin(PlanCommand):
    """`doit pin`."""

    name = "pin"
    doc_purpose = "pin a source to the bytes that it has now, for example after training"
    doc_usage = "SOURCE ..."

    def work(self, plan: Plan, words: list[str]) -> int:
        """Pin each source that is named, and say both digests."""
        from artifacts.sources.pin_now import pin_now  # `doit` and `doit list` start sooner without

        sources = _sources(plan, words)
        lookup, progress = Lookup(plan), Progress()
        progress.begin(len(sources), dict)
        changed = 0
        with naming(lookup.downloads), lookup.store.use():
            try:
                for source in sources:
                    told = partial(progress.progressed, source.full_name)
                    new = pin_now(source, lookup.store.memory, lookup.downloads, told)
                    if new.before == new.sha256:
                        lines = [f" is pinned to these bytes already: sha256 {new.sha256}"]
                    elif new.before is None:
                        lines = [f" is pinned to sha256 {new.sha256}"]
                    else:
                        lines = ["", f"  before: sha256 {new.before}", f"  now:    sha256 {new.sha256}"]
                    changed += new.before != new.sha256
                    lines[0] = f"{source.full_name} ({source.address}){lines[0]}"
                    print(*map(printable, lines), sep="\n", flush=True)
            finally:
                progress.close()
        if changed:
            print(f"commit {LOCK_FILE}; `doit plan` shows what the next run builds")
        return 0


def _sources(plan: Plan, words: list[str]) -> list[NamedSource]:
    """Return the sources that the words name; of a recipe or a pattern, those that are there.

    Raises RecipeError if no word is given, and for a word that names no source.
    """
    if not words:
        known = [name for name, job in plan.jobs.items() if isinstance(job, NamedSource)]
        raise RecipeError("pin: needs a source", f"{EXAMPLE}; the sources are: {', '.join(known) or 'none'}")
    found: dict[str, NamedSource] = {}
    for word in words:
        if word in plan.pipeline.recipes:
            names = [name for name, job in plan.jobs.items() if job.loaded.name == word]
        else:
            names = plan.meant(word)
        named = [job for name in names if isinstance(job := plan.jobs[name], NamedSource)]
        if not named:
            needed = [name for name in plan.selected([word]) if isinstance(plan.jobs[name], NamedSource)]
            fix = f"pin a source that it needs: doit pin {needed[0]}" if needed else EXAMPLE
            raise RecipeError(f"'{word}' is not a source, and only a source has a pin", fix)
        several = word in plan.pipeline.recipes or is_pattern(word)
        found |= {job.full_name: job for job in named if not (several and job.absence)}
    return list(found.values())
