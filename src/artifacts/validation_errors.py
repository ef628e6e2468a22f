"""A mistake that pydantic found, in the words of this project: the fact with the value, and the next move."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from artifacts.web_address import without_secrets

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
    ("min_length", "", "or more", 0),
    ("max_length", "", "or fewer", 0),
)

LONGEST_REPEATED = 60


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
    """Return the next move for a mistake: its own fix, the nearest value that is allowed, else `otherwise`."""
    context = error.get("ctx", {})
    if context.get("fix"):
        return str(context["fix"])
    for bound, beyond, within, step in _BOUNDS:
        if bound in context:
            limit = context[bound]
            if isinstance(limit, int):
                return f"use {limit + step} {within}"
            return f"use a number {beyond} {limit:g}" if step else f"use {limit:g} {within}"
    if error["input"] is None and error["type"].endswith("_type"):
        return "write a value, or delete the key"
    fix = _FIXES.get(error["type"])
    return (fix(error) if fix else None) or otherwise


def mistake(fact: str, fix: str, kind: str = "value_error") -> Exception:
    """Return what a validator raises: a fact and its fix. Of a kind other than `value_error`, the value is told too."""
    from pydantic_core import PydanticCustomError

    return PydanticCustomError(kind, "{fact}", {"fact": fact, "fix": fix})


def in_series(names: Sequence[str]) -> str:
    """Return the names, each quoted, as a sentence has them: `'a', 'b' and 'c'`."""
    quoted = [f"'{name}'" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def _one_text(error: ErrorDetails) -> str:
    match error["input"]:
        case [str(text)] if len(text) <= LONGEST_REPEATED:
            return f"write it without brackets: {without_secrets(text)}"
        case list() | dict():
            return "write one text"
    return "put the value in quotes"


def _list(error: ErrorDetails) -> str | None:
    text, keys = error["input"], [part for part in error["loc"] if isinstance(part, str)]
    if not isinstance(text, str) or len(text) > LONGEST_REPEATED or not keys:
        return None
    # A text that YAML could take for something else is quoted.
    plain = re.fullmatch(r"[A-Za-z/.][\w/.*-]*", text) and text.lower() not in ("true", "false", "null")
    return f"write {keys[-1]}: [{without_secrets(text if plain else json.dumps(text))}]"


def _number(error: ErrorDetails) -> str | None:
    value = error["input"]
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return f"write {int(value)}"
    is_quoted = isinstance(value, str) and len(value) <= LONGEST_REPEATED and re.fullmatch(r"-?\d+", value, re.ASCII)
    return f"write it without quotes: {value}" if is_quoted else None


def _choice(error: ErrorDetails) -> str | None:
    choices = re.findall(r"'([^']*)'", error.get("ctx", {})["expected"])
    near = difflib.get_close_matches(str(error["input"])[:LONGEST_REPEATED], choices, n=1)
    return f"did you mean '{near[0]}'?" if near else None


# The next move for each kind of mistake that pydantic finds; None if the fact says it all.
_FIXES: dict[str, Callable[[Any], str | None]] = {
    "string_type": _one_text,
    "list_type": _list,
    "tuple_type": _list,
    "frozen_set_type": _list,
    "int_type": _number,
    "float_type": _number,
    "literal_error": _choice,
}
