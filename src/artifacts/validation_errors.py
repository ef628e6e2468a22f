"""A mistake that pydantic found, in the words of this project: the fact with the value, and the next move."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

# Phrases of pydantic, and what they are called in YAML.
PLAIN_WORDS = {
    "Field required": "this key is missing",
    "Input should": "must",
    "String should": "must",
    "List should": "must",
    "Tuple should": "must",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "an object": "a mapping of keys",
    "a valid dictionary": "a mapping of keys",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "a text",
    "a valid array": "a list",
    " after validation": "",
}

# pydantic's bounds, and the step from a bound that is excluded to the nearest whole number.
_BOUNDS = (
    ("ge", "", "or more", 0),
    ("gt", "above", "or more", 1),
    ("le", "", "or less", 0),
    ("lt", "below", "or less", -1),
)


def first_mistake(error: ValidationError, depth: int | None = None) -> str:
    """Return the first mistake with its key, `values.0.frames: this key is missing`.

    `depth` is the length of the longest key. For a union, pydantic adds the name of the alternative behind the key.
    """
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"][:depth])[:200]
    return f"{key}: {plain_message(first)}" if key else plain_message(first)


def plain_message(error: ErrorDetails) -> str:
    """Return a mistake in plain words, with the value if it is short."""
    message = error["msg"].removeprefix("Value error, ")
    for phrase, plain in PLAIN_WORDS.items():
        message = message.replace(phrase, plain)
    shown = json.dumps(error["input"], ensure_ascii=False, default=str) if error["type"] != "value_error" else ""
    return f"{message}, got {shown}" if 0 < len(shown) < 80 else message


def fix_of(error: ErrorDetails, otherwise: str) -> str:
    """Return the next move for a mistake: its own fix, the nearest number within a bound, else `otherwise`."""
    context = error.get("ctx", {})
    for bound, beyond, within, step in _BOUNDS:
        if bound in context:
            limit = context[bound]
            if isinstance(limit, int):
                return f"use {limit + step} {within}"
            return f"use a number {beyond} {limit:g}" if step else f"use {limit:g} {within}"
    return str(context.get("fix", otherwise))
