"""Bounds on a YAML text, checked before any value is built.

A parser builds values by recursion, and an alias repeats what it names: a kilobyte can overflow the stack or fill the
memory. Events come one by one, so that checking them takes neither.
"""

from __future__ import annotations

import yaml

# The C parser where it was built.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# The parser compares each with all before it, and says nothing until the last: a megabyte of them takes a minute.
MOST_TAG_DIRECTIVES = 100


class YamlBoundError(ValueError):
    """A YAML text exceeds a bound. `line` and `column` count from 1; `problem` says what is there."""

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
