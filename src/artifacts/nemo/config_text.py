"""Plain values of a checkpoint's YAML text: mappings, lists, texts, numbers, true, false and null.

Scalars are resolved as OmegaConf does, with which NeMo writes and reads the file: YAML 1.1, but `1e-5` is a number and
a date is a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

import yaml

from artifacts.bounded_yaml import LOADER, check_events

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
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


def parse(text: str) -> Any:
    """Return the values. Raises YamlBoundError beyond the bounds, yaml.YAMLError for what is not YAML."""
    check_events(text, max_bytes=MAX_BYTES, max_depth=MAX_DEPTH)
    return yaml.load(text, Loader=_Loader)
