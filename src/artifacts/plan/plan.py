"""Turn recipes into jobs: resolve names, check parameters and detect cycles before anything runs."""

from __future__ import annotations

import fnmatch
import graphlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.errors import RecipeError
from artifacts.params import StepParams
from artifacts.plan.code import code_of
from artifacts.plan.step_files import STEPS_PACKAGE, known_steps, load_step
from artifacts.plan.target_inputs import check_base, inputs_of
from artifacts.recipe.declarations import Target
from artifacts.recipe.pipeline import CONSTRAINTS_FILE, PIPELINE_FILE, Pipeline, load_pipeline
from artifacts.recipe.recipe import LoadedRecipe, NamedSource, load_recipe
from artifacts.recipe.validate import did_you_mean, validate
from artifacts.recipe.yaml_locations import Location
from artifacts.store.digest_memory import DigestMemory
from artifacts.store.records import Identity

# Limits if neither the target nor its recipe has any. The longest step at 0.6 billion parameters takes an hour or two.
DEFAULT_MINUTES, DEFAULT_SILENT_MINUTES = 720.0, 60.0


@dataclass(frozen=True)
class Job:
    """A target or a layout, ready to be built. `inputs` maps input names to full names, `recipe:name`.

    `depends_on_processor` is True for a step that measures: another processor gives other bytes. `headline` names the
    metrics that the run table shows.
    """

    loaded: LoadedRecipe
    section: str
    name: str
    step: str
    doc: str
    params: dict[str, Any]
    inputs: dict[str, str]
    tools: dict[str, str]
    memory_gib: float | None
    minutes: float
    silent_minutes: float
    depends_on_processor: bool
    headline: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """`recipe:name`, as on the command line."""
        return f"{self.loaded.name}:{self.name}"

    @property
    def is_layout(self) -> bool:
        """Whether the result is laid out under `dist/`."""
        return self.section == "layouts"

    @property
    def trusted(self) -> dict[str, str]:
        """The inputs whose source has `trust: true`, with the full names of the sources."""
        sources = {f"{self.loaded.name}:{name}": source for name, source in self.loaded.recipe.sources.items()}
        return {name: source for name, source in self.inputs.items() if source in sources and sources[source].trust}

    def location(self, *path: str) -> Location:
        """Return the location of this target in its recipe, or of one of its values."""
        return self.loaded.document.location((self.section, self.name, *(path or ("<key>",))))

    def identity(self, contents: dict[str, str], memory: DigestMemory) -> Identity:
        """Return the identity. `contents` has the content digest of each input by its full name."""
        inputs = {name: contents[source] for name, source in self.inputs.items()}
        return Identity(self.step, code_of(f"{STEPS_PACKAGE}.{self.step}", memory), self.params, self.tools, inputs)


@dataclass(frozen=True)
class Plan:
    """Sources and jobs of the recipes by full name, in building order: each after its inputs."""

    pipeline: Pipeline
    jobs: dict[str, Job | NamedSource]

    def resolve(self, word: str) -> str:
        """Return the full name of the target that a word on the command line names. Raises `RecipeError`."""
        full = word if ":" in word else f"{self.pipeline.default}:{word}"
        if full in self.jobs:
            return full
        recipe = word.partition(":")[0]
        if ":" in word and recipe not in self.pipeline.recipes:
            fix = did_you_mean(recipe, self.pipeline.recipes, f"write recipes/{recipe}.yaml, or see: doit list")
            raise RecipeError(f"no recipe is called '{recipe}'", fix)
        short = [name.removeprefix(f"{self.pipeline.default}:") for name in self.jobs] + list(self.pipeline.recipes)
        names = list(self.jobs) if ":" in word else short
        otherwise = "see them all with: doit list --all"
        if is_pattern(word):
            groups = {f"{name.partition('_')[0]}_*" for name in names if "_" in name}
            raise RecipeError(f"no target matches '{word}'", did_you_mean(word, [*names, *groups], otherwise))
        raise RecipeError(f"no target is called '{word}'", did_you_mean(word, names, otherwise))

    def meant(self, word: str) -> list[str]:
        """Return the full names of the targets that a word means: those of a recipe, those of a pattern, or one.

        Raises `RecipeError` if there is none.
        """
        if word in self.pipeline.recipes:
            own = [name for name, job in self.jobs.items() if job.loaded.name == word]
            return [name for name in own if self.jobs[name].loaded.is_default(self.jobs[name].name)]
        if is_pattern(word):
            pattern = word if ":" in word else f"{self.pipeline.default}:{word}"
            if fitting := fnmatch.filter(self.jobs, pattern):
                return fitting
        return [self.resolve(word)]

    def selected(self, words: list[str]) -> list[str]:
        """Return the full names of the targets that the words mean, and of all that these need, in building order.

        Without words, the default recipe is meant.
        """
        wanted = {name for word in words or [self.pipeline.default] for name in self.meant(word)}
        for name in reversed(self.jobs):
            job = self.jobs[name]
            if name in wanted and isinstance(job, Job):
                wanted |= set(job.inputs.values())
        return [name for name in self.jobs if name in wanted]


def is_pattern(word: str) -> bool:
    """Return whether a word of a command line is a pattern."""
    return bool(set(word) & set("*?["))


def load_plan(path: Path = PIPELINE_FILE, words: list[str] | None = None) -> Plan:
    """Read the pipeline and its recipes, as `plan_of` does. Raises `RecipeError`."""
    return plan_of(load_pipeline(path), words)


def plan_of(pipeline: Pipeline, words: list[str] | None = None) -> Plan:
    """Return the plan of all recipes, or of those that the words of a command line refer to.

    Raises `RecipeError` for the first mistake in any of the recipes.
    """
    jobs: dict[str, Job | NamedSource] = {}
    steps = known_steps()
    for name in pipeline.recipes if words is None else _referred_to(pipeline, words):
        loaded = load_recipe(name, pipeline.recipes[name])
        if name == pipeline.default:
            _check_names(pipeline, loaded)
        of_recipe: dict[str, Job | NamedSource] = {}
        for source in loaded.recipe.sources:
            of_recipe[f"{name}:{source}"] = NamedSource(loaded, source)
        for section, targets in (("targets", loaded.recipe.targets), ("layouts", loaded.recipe.layouts)):
            for target in targets:
                _check_step(steps, loaded, section, target, targets[target].step)
                of_recipe[f"{name}:{target}"] = _job(pipeline, loaded, section, target, targets[target])
        needs = {full: list(job.inputs.values()) for full, job in of_recipe.items() if isinstance(job, Job)}
        _check_cycles(of_recipe, needs)
        check_base(loaded, {_short(full): [*map(_short, inputs)] for full, inputs in needs.items()})
        jobs.update(_ordered(of_recipe, needs))
    return Plan(pipeline, jobs)


def _referred_to(pipeline: Pipeline, words: list[str]) -> list[str]:
    """Return the recipes that the words refer to; all of them for patterns and unknown names."""
    names: set[str] = set()
    for word in words or [pipeline.default]:
        recipe = word.partition(":")[0] if ":" in word or word in pipeline.recipes else pipeline.default
        if recipe not in pipeline.recipes or is_pattern(word):
            return list(pipeline.recipes)
        names.add(recipe)
    return [name for name in pipeline.recipes if name in names]


def _check_names(pipeline: Pipeline, loaded: LoadedRecipe) -> None:
    """Raise `RecipeError` for a target of the default recipe that has the name of a recipe."""
    for section in ("sources", "targets", "layouts"):
        for name in set(pipeline.recipes) & set(getattr(loaded.recipe, section)):
            location = loaded.document.location((section, name, "<key>"))
            fix = f"rename one of the two: 'doit {name}' must mean one thing"
            raise RecipeError(f"{location}: {section}: '{name}' is the name of a recipe", fix)


def _check_step(steps: Collection[str], loaded: LoadedRecipe, section: str, name: str, step: str) -> None:
    """Raise `RecipeError` for a target whose step does not exist."""
    if step not in steps:
        location = loaded.document.location((section, name, "step"))
        fix = did_you_mean(step, steps, f"the steps are: {', '.join(steps)}")
        raise RecipeError(f"{location}: {section}.{name}.step: no step is called '{step}'", fix)


def _job(pipeline: Pipeline, loaded: LoadedRecipe, section: str, name: str, target: Target) -> Job:
    try:
        module = load_step(target.step)
    except RecipeError as error:
        where = f"{loaded.document.location((section, name, 'step'))}: {section}.{name}.step"
        raise RecipeError(f"{where}: {error.fact}", error.fix) from error
    params = _params(module.Params, loaded, section, name)
    tools = {}
    for tool in module.TOOLS:
        version = pipeline.version_of(tool)
        if version is None:
            fact = f"{CONSTRAINTS_FILE}: '{tool}', which decides the bytes of step '{target.step}', is not pinned"
            raise RecipeError(fact, f"add its version, for example '{tool}==1.2.3'")
        tools[tool] = version
    # `python -OO` removes docstrings.
    doc = target.about or next(iter((module.__doc__ or "").strip().splitlines()), target.step)
    sources = inputs_of(loaded, section, name, target, module.run)
    inputs = {key: f"{loaded.name}:{source}" for key, source in sources.items()}
    measures, headline = getattr(module, "DEPENDS_ON_PROCESSOR", False), tuple(getattr(module, "HEADLINE", ()))
    resources, defaults = target.resources, loaded.recipe.resources
    minutes = resources.minutes or defaults.minutes or DEFAULT_MINUTES
    silent = resources.silent_minutes or defaults.silent_minutes or DEFAULT_SILENT_MINUTES
    limits = resources.memory_gib, minutes, silent
    return Job(loaded, section, name, target.step, doc, params, inputs, tools, *limits, measures, headline)


def _params(model: type[StepParams], loaded: LoadedRecipe, section: str, name: str) -> dict[str, Any]:
    filled = validate(model, loaded.document, (section, name, "params"))
    result: dict[str, Any] = json.loads(filled.model_dump_json())
    return result


def _short(full_name: str) -> str:
    return full_name.partition(":")[2]


def _check_cycles(jobs: dict[str, Job | NamedSource], needs: dict[str, list[str]]) -> None:
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        cycle: list[str] = [_short(name) for name in error.args[1]]
        job = jobs[error.args[1][0]]
        assert isinstance(job, Job)  # a source needs nothing
        fact = f"{job.location('inputs')}: {job.section}.{job.name}.inputs: dependency cycle: {' -> '.join(cycle)}"
        raise RecipeError(fact, "remove one of these inputs") from None


def _ordered(jobs: dict[str, Job | NamedSource], needs: dict[str, list[str]]) -> dict[str, Job | NamedSource]:
    """Return the jobs in building order: each after its inputs, else as in the recipe."""
    ordered: dict[str, Job | NamedSource] = {}
    # An explicit stack, because a chain of targets may be deeper than Python's recursion limit.
    waiting = list(reversed(jobs))
    while waiting:
        lacking = [source for source in reversed(needs.get(waiting[-1], [])) if source not in ordered]
        if lacking:
            waiting += lacking
        else:
            name = waiting.pop()
            ordered.setdefault(name, jobs[name])
    return ordered
