"""Validate YAML by a pydantic model, and report a mistake with its location, in words for the YAML's author."""

from __future__ import annotations

import difflib
import json
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from artifacts.errors import RecipeError
from artifacts.recipe.yaml_locations import KeyPath, YamlDocument
from artifacts.validation_errors import fix_of, plain_message

if typing.TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return the fix for an unknown word: the nearest known one, else `otherwise`."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else otherwise


def validate(model: type[Model], document: YamlDocument, path: KeyPath = ()) -> Model:
    """Return the model of the value at `path`, with defaults filled in; without a value, all fields have defaults.

    Values have JSON's types: `1` can be a float, `"1"` cannot. Raises `RecipeError` for the first mistake, with its
    location.
    """
    value = document.value
    for part in path:
        value = value.get(part) if isinstance(value, dict) else value[part]
    try:
        return model.model_validate_json(json.dumps({} if value is None else value))
    except ValidationError as error:
        # A misspelt key causes two errors: unknown and missing. The unknown one says more.
        errors = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
        raise _explain(model, document, path, errors[0]) from None


def _explain(model: type[BaseModel], document: YamlDocument, path: KeyPath, error: ErrorDetails) -> RecipeError:
    # pydantic adds parts to the location that are not keys, for example the member of a union.
    full: KeyPath = path
    for part in error["loc"]:
        if (*full, part) in document.locations or error["type"] == "missing":
            full = (*full, part)
    name = ".".join(str(part) for part in full)
    if error["type"] == "extra_forbidden":
        key = str(error["loc"][-1])
        known = _keys_at(model, error["loc"][:-1])
        fix = did_you_mean(key, known, f"the known keys are: {', '.join(known) or 'none'}")
        return RecipeError(f"{document.location((*full, '<key>'))}: {name}: unknown key '{key}'", fix)
    if error["type"] == "missing":
        fix = "add it"
        if len(full) > 1:  # a misspelt target of a base recipe lacks its step
            siblings: Any = document.value
            for part in full[:-2]:
                siblings = siblings[part]
            others = [key for key in siblings if key != full[-2]] if isinstance(siblings, dict) else []
            near = difflib.get_close_matches(str(full[-2]), others, n=1)
            fix = f"add it; or did you mean '{near[0]}' by '{full[-2]}'?" if near else fix
        return RecipeError(f"{document.location(full)}: {name}: this key is missing", fix)
    message = plain_message(error)
    location = document.location((*full, "<key>") if error["loc"][-1:] == ("[key]",) else full)
    where = f"{location}: {name}" if name else f"{location}"
    return RecipeError(f"{where}: {message}", fix_of(error, f"correct '{full[-1]}'" if full else "correct it"))


def _keys_at(model: Any, location: Iterable[str | int]) -> list[str]:
    """Return the keys that a model knows at a location inside it."""
    here = model
    for part in location:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(part))
            here = field.annotation if field else None
            if type(None) in typing.get_args(here):  # `Model | None`
                here = typing.get_args(here)[0]
        elif typing.get_origin(here) in (dict, list, tuple):
            here = typing.get_args(here)[-1]
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []
