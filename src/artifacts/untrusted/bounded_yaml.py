"""Check a YAML text against bounds before any value is built, and load plain values within them.

A parser builds values by recursion, and an alias repeats a value: a kilobyte can overflow the stack or fill the memory.
Events come one by one, so that checking them takes neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

import yaml

# The C parser if PyYAML was built with it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# YAML 1.1 has numbers of base 60, which take quadratic time, and int() refuses 4300 digits.
MAX_NUMBER_LENGTH = 40

_TAG = "tag:yaml.org,2002:"
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?\Z"
    r"|[-+]?(?:[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)\Z"
    r"|\.[0-9_]+(?:[eE][-+][0-9]+)?\Z"
    r"|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
)
Constructor = Callable[[Any, Any], Any]

# The parser compares each with all before it, before the first event: a megabyte of them takes a minute.
MOST_TAG_DIRECTIVES = 100


class YamlBoundError(ValueError):
    """A YAML text exceeds a bound. `line` and `column` count from 1; `problem` is the text of the error."""

    def __init__(self, problem: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {problem}")
        self.problem, self.line, self.column = problem, line, column


def check_events(text: str, *, max_bytes: int, max_depth: int) -> None:
    """Refuse a text that has more bytes in UTF-8, nests lists and mappings deeper, or has an anchor or alias.

    Call it before a loader builds nodes from the same text. Raises YamlBoundError, or what that loader raises for a
    text that is not YAML: `yaml.YAMLError`.
    """
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        raise YamlBoundError(f"the text has {size} bytes, at most {max_bytes} are read", 1, 1)
    if text.count("%TAG") > MOST_TAG_DIRECTIVES:
        line = text.count("\n", 0, text.index("%TAG")) + 1
        raise YamlBoundError(f"more than {MOST_TAG_DIRECTIVES} %TAG directives", line, 1)
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        problem = None
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            kind = "alias" if isinstance(event, yaml.AliasEvent) else "anchor"
            problem = f"{kind} '{_shortened(event.anchor)}': anchors and aliases are not read"
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > max_depth:
                problem = f"nested more than {max_depth} deep"
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if problem is not None:
            mark = event.start_mark
            assert mark is not None
            raise YamlBoundError(problem, mark.line + 1, mark.column + 1)


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


class _Loader(LOADER):  # type: ignore[misc, valid-type]
    yaml_constructors: ClassVar[dict[str | None, Constructor]] = {
        tag: LOADER.yaml_constructors[tag] for tag in (*(f"{_TAG}{kind}" for kind in ("null", "str", "seq")), None)
    }
    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {
        first: [(tag, pattern) for tag, pattern in known if tag not in (f"{_TAG}timestamp", f"{_TAG}float")]
        for first, known in LOADER.yaml_implicit_resolvers.items()
    }


def _number(loader: Any, node: yaml.ScalarNode) -> int | float | bool:
    kind = node.tag.removeprefix(_TAG)
    try:
        if len(node.value) > MAX_NUMBER_LENGTH:
            raise ValueError
        value: int | float | bool = getattr(loader, f"construct_yaml_{kind}")(node)
    except (ValueError, OverflowError, LookupError):
        problem = f"{node.value!r:.80} is not of type {kind}"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None
    return value


def _mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    mapping: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    if len(mapping) < len(node.value):
        raise yaml.constructor.ConstructorError(None, None, "a key is given twice", node.start_mark)
    return mapping


_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+0123456789."))
for _kind in ("int", "float", "bool"):
    _Loader.add_constructor(f"{_TAG}{_kind}", _number)
_Loader.add_constructor(f"{_TAG}map", _mapping)


def load_plain(text: str, *, max_bytes: int, max_depth: int) -> Any:
    """Return the mappings, lists, texts, numbers, booleans and nulls of a text. No tag makes another object.

    Scalars are resolved as OmegaConf does: YAML 1.1, but `1e-5` is a number and a date is a text. Raises
    YamlBoundError beyond the bounds, yaml.YAMLError for a text that is not YAML, has another tag, or gives a key twice.
    """
    check_events(text, max_bytes=max_bytes, max_depth=max_depth)
    return yaml.load(text, Loader=_Loader)
