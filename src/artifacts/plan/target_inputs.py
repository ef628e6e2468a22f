"""Inputs of targets: what a step takes, what a recipe gives it, and what a base recipe needs that no recipe has."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from artifacts.errors import RecipeError
from artifacts.recipe.declarations import Target
from artifacts.recipe.recipe import LoadedRecipe
from artifacts.recipe.validate import did_you_mean
from artifacts.validation_errors import in_series

# Names of the inputs of each target and layout of a recipe.
Needs = Mapping[str, Collection[str]]


def inputs_of(loaded: LoadedRecipe, section: str, name: str, target: Target, run: Any) -> dict[str, str]:
    """Return the source or target for each input of a target. An input that is not written is that of its own name.

    A target of a base recipe may need what no recipe has: `check_base` reports all of it at once. Raises `RecipeError`
    for any other mistake, with its location.
    """
    parameters, known = _parameters(run), _names(loaded)
    label, location = f"{section}.{name}.inputs", loaded.document.location
    for key, source in target.inputs.items():
        if key not in parameters:
            takes = f"step '{target.step}' takes: {', '.join(parameters)}"
            fix = did_you_mean(key, parameters, takes if parameters else "write '*,' before the inputs of its run()")
            where = location((section, name, "inputs", key, "<key>"))
            raise RecipeError(f"{where}: {label}: step '{target.step}' takes no input '{key}'", fix)
        where = location((section, name, "inputs", key))
        if source not in known and where.file == loaded.file:
            fact = f"{where}: {label}.{key}: no source or target is called '{source}'"
            raise RecipeError(fact, did_you_mean(source, known, "name a source, a target or a layout of this recipe"))
    implied = {}
    for key, parameter in parameters.items():
        if parameter.default is not inspect.Parameter.empty or key in target.inputs:
            continue
        # A target is not its own input.
        if key == name or (key not in known and location((section, name, "step")).file == loaded.file):
            fact = f"{location((section, name, 'inputs'))}: {label}: step '{target.step}' needs the input '{key}'"
            raise RecipeError(fact, f"add it: '{key}: <source or target>'")
        implied[key] = key
    return implied | target.inputs


def check_base(loaded: LoadedRecipe, needs: Needs) -> None:
    """Raise `RecipeError` for what targets of a base recipe need and no recipe has: the base is not to be edited."""
    known = _names(loaded)
    missing = list(dict.fromkeys(name for inputs in needs.values() for name in inputs if name not in known))
    if missing:
        removed = {
            name: section
            for name in missing
            for section in ("sources", "targets", "layouts")
            if (section, name, "<key>") in loaded.document.locations
        }
        raise _removed(loaded, needs, removed) if removed else _without_sources(loaded, needs, missing)


def _removed(loaded: LoadedRecipe, needs: Needs, removed: Mapping[str, str]) -> RecipeError:
    """Return the error for the first name that a recipe removes, with all that has to be removed with such names."""
    name, section = next(iter(removed.items()))
    consumer = next(target for target, inputs in needs.items() if name in inputs)
    path = (section, name) if section in loaded.document.value else (section,)
    where = loaded.document.location((*path, "<key>"))
    fact = f"{where}: {section}.{name}: is removed, and '{consumer}' of its base needs it"
    gone = _needing(needs, removed)
    sections = {"targets": loaded.recipe.targets, "layouts": loaded.recipe.layouts}
    lists = {key: [f"{one}: null" for one in gone if one in names] for key, names in sections.items()}
    too = " and ".join(f"{key}: {{{', '.join(names)}}}" for key, names in lists.items() if names)
    return RecipeError(fact, f"keep it, or add {too}")


def _without_sources(loaded: LoadedRecipe, needs: Needs, missing: list[str]) -> RecipeError:
    document = loaded.document
    where = document.location(("sources", "<key>")) if "sources" in document.value else None
    if where is None or where.file != loaded.file:
        where = document.location(("extends", "<key>"))
    fact = f"{where}: sources: {in_series(missing)} {'are' if len(missing) > 1 else 'is'} missing, which its base needs"
    unused = set(loaded.recipe.sources) - {name for inputs in needs.values() for name in inputs}
    for name in missing:
        if near := difflib.get_close_matches(name, unused, n=1):
            return RecipeError(fact, f"did you mean '{name}' by '{near[0]}'?")
    for name in missing:
        if len(_needing(needs, [name])) > len(needs) / 2:  # without it, hardly anything can be built
            return RecipeError(fact, f"add for example '{name}: {{file: PATH}}'")
    example = f"{missing[0]}: {{folder: ../{missing[0]}, optional: true}}"
    return RecipeError(fact, f"add for example '{example}': while it is not there, what needs it is skipped")


def _needing(needs: Needs, names: Collection[str]) -> list[str]:
    """Return the targets that need one of these names, those that need such a target, and so on."""
    gone = set(names)
    while more := {target for target, inputs in needs.items() if target not in gone and gone & set(inputs)}:
        gone |= more
    return [target for target in needs if target in gone]


def _names(loaded: LoadedRecipe) -> set[str]:
    recipe = loaded.recipe
    return {*recipe.sources, *recipe.targets, *recipe.layouts}


@cache
def _parameters(run: Any) -> dict[str, inspect.Parameter]:
    signature = inspect.signature(run).parameters.values()
    return {parameter.name: parameter for parameter in signature if parameter.kind is inspect.Parameter.KEYWORD_ONLY}
