"""Read YAML with the file, line and column of every value, so that an error can name them.

Scalars have the types of YAML 1.2: `1e-7` is a number, `no` and `on` are text. A repeated key, an anchor, an alias, and
a tag that is not of a scalar's type are errors.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import yaml

from artifacts.errors import RecipeError
from artifacts.untrusted.bounded_yaml import LOADER, YamlBoundError, check_events

KeyPath = tuple[str | int, ...]

TAG = "tag:yaml.org,2002:"


class Location(NamedTuple):
    """Position of a value; lines and columns count from 1."""

    file: Path
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


Locations = dict[KeyPath, Location]


@dataclass
class YamlDocument:
    """A YAML document: plain values, and the location of the value at each key path."""

    value: Any
    locations: Locations = field(default_factory=dict)

    def location(self, path: KeyPath) -> Location:
        """Return the location of a value, or of its nearest parent that is in a file."""
        while path and path not in self.locations:
            path = path[:-1]
        return self.locations[path]


class _Loader(LOADER):  # type: ignore[misc, valid-type]  # chosen at run time
    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"{TAG}{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)

# Function from text to value for each scalar's tag. PyYAML's own would read `010` as 8, as in YAML 1.1.
SCALARS: dict[str, Callable[[str], Any]] = {
    f"{TAG}str": str,
    f"{TAG}null": lambda _text: None,
    f"{TAG}bool": lambda text: text.lower() == "true",
    f"{TAG}int": lambda text: int(text.replace("_", "")),
    f"{TAG}float": float,
}
COLLECTIONS = {f"{TAG}map", f"{TAG}seq"}

# The parser is recursive, one call a level. Its result takes some 300 times the memory of the text.
MOST_LEVELS = 50
MOST_BYTES = 2_000_000

KINDS: dict[int, str] = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_yaml(path: Path) -> YamlDocument:
    """Read a YAML file of at most 2 MB and 50 levels.

    Raises `RecipeError` for a file that is missing, too large, not regular or not YAML, and for a repeated key.
    """
    with _without_garbage_collection():
        return _parse(read_text(path), path)


def yaml_value(text: str, label: str) -> Any:
    """Return the value of a YAML text that comes from no file. Raises `RecipeError`, with the label as location."""
    return _parse(text, Path(label)).value


def _parse(text: str, path: Path) -> YamlDocument:
    try:
        check_events(text, max_bytes=MOST_BYTES, max_depth=MOST_LEVELS)
        node = _Loader(text).get_single_node()
    except YamlBoundError as error:
        fix = "repeat the value where it is used, and nest less; `extends:` shares common parts of recipes"
        raise RecipeError(f"{Location(path, error.line, error.column)}: {error.problem}", fix) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        location = Location(path, mark.line + 1, mark.column + 1) if mark else path
        fact = f"{location}: not YAML: {error.problem or error.context}"
        raise RecipeError(fact, "correct the syntax there") from None
    except yaml.reader.ReaderError as error:
        raise RecipeError(f"{path}: not YAML: {error.reason}", "remove the character that YAML forbids") from None
    document = YamlDocument(None)
    if node is None:
        document.locations[()] = Location(path, 1, 1)
    else:
        document.value = _convert(node, path, (), document.locations)
    return document


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable the garbage collector in the block: reading makes no garbage, and takes three times as long with it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_text(path: Path) -> str:
    """Return the text of a regular UTF-8 file of at most 2 MB. Raises `RecipeError`."""
    try:
        kind = KINDS.get(stat.S_IFMT(path.stat().st_mode))
        if kind is not None:
            raise OSError(0, f"it is {kind}, not a regular file")
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            fix = "make it shorter, or name another file"
            raise RecipeError(f"{path}: the file has more than {MOST_BYTES} bytes", fix)
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file", "create it, or correct its path") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise RecipeError(f"{path}: cannot be read: {reason}", "make it a readable UTF-8 text file") from None


def _convert(node: yaml.Node, file: Path, path: KeyPath, locations: Locations) -> Any:
    location = locations[path] = _location(file, node)
    if isinstance(node, yaml.CollectionNode) and node.tag not in COLLECTIONS:
        raise RecipeError(f"{location}: the tag '{_shown(node.tag)}' is not supported", "remove the tag")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            at_key = _location(file, key_node)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in SCALARS:
                raise RecipeError(f"{at_key}: a key must be a word", "put the text in quotes")
            key = key_node.value
            if key in mapping:
                raise RecipeError(f"{at_key}: the key '{key}' is repeated", "keep one of the two")
            mapping[key] = _convert(value_node, file, (*path, key), locations)
            # Errors about an empty value or an unknown key name the location of the key.
            locations[(*path, key, "<key>")] = at_key
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_convert(child, file, (*path, index), locations) for index, child in enumerate(node.value)]
    try:
        value = SCALARS[node.tag](node.value)
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError
    except (KeyError, ValueError):
        fact = f"{location}: '{node.value}' is not a valid {_shown(node.tag)}"
        raise RecipeError(fact, "use a text, a number, true or false") from None
    return value


def _shown(tag: str) -> str:
    return tag.replace(TAG, "!!")


def _location(file: Path, node: yaml.Node) -> Location:
    return Location(file, node.start_mark.line + 1, node.start_mark.column + 1)


def merge(base: YamlDocument, over: YamlDocument) -> YamlDocument:
    """Return `base` overridden by `over`: mappings are merged by key, other values replace, `null` removes the key.

    A `null` for a key that no base has is kept: it removes nothing. What was removed has the location of its `null`.
    """
    locations = dict(base.locations)
    value = _merge(base.value, over.value, (), locations, over.locations)
    return YamlDocument(value, locations)


def _merge(base: Any, over: Any, path: KeyPath, locations: Locations, over_locations: Locations) -> Any:
    if isinstance(base, dict | None) and isinstance(over, dict):
        merged = dict(base or {})
        _locate(path, locations, over_locations)
        for key, value in over.items():
            here = (*path, key)
            if value is None and here in locations:  # in a base, or removed by one
                merged.pop(key, None)
                _locate(here, locations, over_locations)
            else:
                merged[key] = _merge(merged.get(key), value, here, locations, over_locations)
        return merged
    for stale in _paths(base, path):
        locations.pop(stale, None)
    for written in _paths(over, path):
        if written in over_locations:
            locations[written] = over_locations[written]
    return over


def _locate(path: KeyPath, locations: Locations, over_locations: Locations) -> None:
    for mark in (path, (*path, "<key>")):
        if mark in over_locations:
            locations[mark] = over_locations[mark]


def _paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    """Yield the key paths of a value and of all values in it."""
    yield path
    yield (*path, "<key>")
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _paths(child, (*path, key))
