"""YAML in which every value knows its file, line and column, so that an error can point at it.

Scalars are resolved as YAML 1.2 does: `1e-7` is a number, `no` and `on` are text. A key given twice is an error.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import yaml

from artifacts.errors import RecipeError

KeyPath = tuple[str | int, ...]

TAG = "tag:yaml.org,2002:"


class Place(NamedTuple):
    """Where a value stands; lines and columns count from 1."""

    file: Path
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass
class Marked:
    """A YAML document: plain values, and the place of the value at each key path."""

    value: Any
    places: dict[KeyPath, Place] = field(default_factory=dict)

    def place(self, path: KeyPath) -> Place:
        """The place of a value, or of its nearest parent that was written down."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places[path]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the C parser where it was built
    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"{TAG}{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)

# A scalar's value by its tag. PyYAML's own constructors would read `010` as 8, as YAML 1.1 did.
SCALARS: dict[str, Callable[[str], Any]] = {
    f"{TAG}str": str,
    f"{TAG}null": lambda _text: None,
    f"{TAG}bool": lambda text: text.lower() == "true",
    f"{TAG}int": lambda text: int(text.replace("_", "")),
    f"{TAG}float": float,
}
DEEPEST = 50


def read_yaml(path: Path) -> Marked:
    """Read a YAML file. Raises `RecipeError` for what is missing, not YAML, or given twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file", "create it, or correct the path that led here") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}", "make it a readable UTF-8 text file") from None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        document = Marked(None)
        if node is None:
            document.places[()] = Place(path, 1, 1)
        else:
            document.value = _convert(node, path, (), document.places)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(path, mark.line + 1, mark.column + 1) if mark else path
        raise RecipeError(f"{place}: not YAML: {error.problem or error.context}", "correct the syntax there") from None
    except yaml.reader.ReaderError as error:
        raise RecipeError(f"{path}: not YAML: {error.reason}", "remove the character that YAML forbids") from None
    return document


def _convert(node: yaml.Node, file: Path, path: KeyPath, places: dict[KeyPath, Place]) -> Any:
    place = places[path] = _place(file, node)
    if len(path) > DEEPEST:
        raise RecipeError(f"{place}: nested more than {DEEPEST} deep", "an alias here may hold itself; write it flat")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            at_key = _place(file, key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise RecipeError(f"{at_key}: a key must be a word", "put the text in quotes")
            key = key_node.value
            if key in mapping:
                raise RecipeError(f"{at_key}: the key '{key}' is given twice", "keep one of the two")
            mapping[key] = _convert(value_node, file, (*path, key), places)
            # An empty value has no text of its own to point at, and an unknown key is wrong at the key.
            places[(*path, key, "<key>")] = at_key
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_convert(child, file, (*path, index), places) for index, child in enumerate(node.value)]
    try:
        value = SCALARS[node.tag](node.value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
    except (KeyError, ValueError):
        fact = f"{place}: '{node.value}' is no {node.tag.replace(TAG, '!!')} known here"
        raise RecipeError(fact, "write a text, a number, true or false") from None
    return value


def _place(file: Path, node: yaml.Node) -> Place:
    return Place(file, node.start_mark.line + 1, node.start_mark.column + 1)


def merge(base: Marked, over: Marked) -> Marked:
    """`over` laid on `base`: mappings join key by key, any other value replaces, `null` removes the key."""
    places = dict(base.places)
    value = _merge(base.value, over.value, (), places, over.places)
    return Marked(value, places)


def _merge(base: Any, over: Any, path: KeyPath, places: dict[KeyPath, Place], over_places: dict[KeyPath, Place]) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        joined = dict(base)
        for mark in (path, (*path, "<key>")):
            if mark in over_places:
                places[mark] = over_places[mark]
        for key, value in over.items():
            if value is None:
                joined.pop(key, None)
            else:
                joined[key] = _merge(joined.get(key), value, (*path, key), places, over_places)
        return joined
    for stale in [known for known in places if known[: len(path)] == path]:
        del places[stale]
    places.update({known: place for known, place in over_places.items() if known[: len(path)] == path})
    return over
