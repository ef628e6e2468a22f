"""Digests of a step's code: one for each definition that the step can reach, without comments and docstrings.

A reworded comment changes no digest. A changed function changes its own digest, whose name says what changed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.errors import RecipeError
from artifacts.plan.step_files import own_step_file
from artifacts.store.digest_memory import DigestMemory

PACKAGE = Path(__file__).parents[1]
# Left out of the code digest: error classes and messages, and which metrics a table shows, cannot change outputs.
WITHOUT_BYTES = ("artifacts.errors", "artifacts.validation_errors")
NAMES_WITHOUT_BYTES = ("HEADLINE",)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
# Part of the memory's key: digests by another normalisation, or of another Python's syntax tree, are not reused.
NORMALISATION = f"code 6 python {sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Code:
    """Code that a module reaches: {module: {definition: digest}}, and the sha256 of each module's file."""

    definitions: dict[str, dict[str, str]]
    files: dict[str, str]


def code_of(module: str, memory: DigestMemory) -> dict[str, dict[str, str]]:
    """Return the definitions that `module` reaches by imports from this package: {module: {definition: digest}}.

    Imports inside functions count as those at the top. Digests are the first 16 hex digits of a sha256.
    """
    return read_code(module, memory).definitions


def read_code(module: str, memory: DigestMemory) -> Code:
    """Return the definitions of `code_of`, and the sha256 of the files that contain them."""
    reached: dict[str, dict[str, str]] = {}
    files: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in reached or name in WITHOUT_BYTES:
            continue
        path = _module_file(name, PACKAGE) or own_step_file(name)
        if path is None:
            continue
        described = memory.remember(path, NORMALISATION, functools.partial(_describe, name=name))
        reached[name], files[name] = described["definitions"], described["sha256"]
        waiting.extend(described["imports"])
    return Code(dict(sorted((name, definitions) for name, definitions in reached.items() if definitions)), files)


def forget_code(module: str, memory: DigestMemory) -> None:
    """Drop the remembered digests of the files that `module` reaches, so that they are read again."""
    for name in read_code(module, memory).files:
        path = _module_file(name, PACKAGE) or own_step_file(name)
        if path is not None:
            memory.forget(path)


@functools.cache  # a module's path does not change during a run; its content is checked each time
def _module_file(name: str, package: Path) -> Path | None:
    top, _, rest = name.partition(".")
    if top != package.name:
        return None
    base = package.joinpath(*rest.split(".")) if rest else package
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _describe(path: Path, name: str) -> dict[str, Any]:
    source = path.read_bytes()
    try:
        tree = ast.parse(source, filename=str(path))
    except (SyntaxError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read as Python: {error}", "correct the syntax") from None
    is_package = path.name == "__init__.py"
    digests: dict[str, Any] = {}
    run_in_order = []
    for statement in _without_texts(tree.body):
        label = _label(statement)
        if label is not None and label not in NAMES_WITHOUT_BYTES:
            digests.setdefault(label, hashlib.sha256()).update(_normal_form(statement).encode())
            if not isinstance(statement, (*DEFINITIONS, ast.Import, ast.ImportFrom)):
                run_in_order.append(label)
    if len(set(run_in_order)) > 1:
        digests["order of statements"] = hashlib.sha256("\n".join(run_in_order).encode())
    definitions = {label: digest.hexdigest()[:16] for label, digest in sorted(digests.items())}
    imports = sorted(set(_imports(tree, name, is_package)))
    return {"definitions": definitions, "imports": imports, "sha256": hashlib.sha256(source).hexdigest()}


def _label(statement: ast.stmt) -> str | None:
    """Return the name that a top-level statement is digested by; None for `from __future__`."""
    if isinstance(statement, DEFINITIONS):
        return statement.name
    if isinstance(statement, ast.AnnAssign):
        return _escape(ast.unparse(statement.target))
    if isinstance(statement, ast.Assign):
        return ", ".join(_escape(ast.unparse(target)) for target in statement.targets)
    if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
        return None
    return "module level"


def _normal_form(node: Any) -> str:
    """Return the syntax tree as text, without positions, docstrings and empty fields.

    Each Python gives the same text: the fields that 3.12 and 3.13 added are empty in code that 3.11 can run.
    """
    if isinstance(node, ast.AST):
        fields = []
        for field, content in ast.iter_fields(node):
            value = content
            if field == "body" and isinstance(content, list):
                value = _without_texts(content)
            elif isinstance(node, ast.JoinedStr):
                # Only Python 3.12 adds empty texts, to the formats inside f-strings.
                value = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
            if value is not None and value != []:
                fields.append(f"{field}={_normal_form(value)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(_normal_form, node))}]"
    return f"{type(node).__name__}:{_escape(repr(node))}"


def _escape(written: str) -> str:
    """Return what `repr` or `ast.unparse` wrote, with the characters escaped that are newer than Unicode 3.2.

    They write a character as itself once their Python knows it. Every Python knows those of Unicode 3.2.
    """
    if written.isascii():
        return written
    known = unicodedata.ucd_3_2_0.category
    return "".join(ascii(letter)[1:-1] if known(letter) == "Cn" else letter for letter in written)


def _without_texts(body: list[ast.stmt]) -> list[ast.stmt]:
    """Return the statements that are not a bare text: a docstring, or a text below a field."""
    return [
        statement
        for statement in body
        if not (isinstance(statement, ast.Expr) and isinstance(getattr(statement.value, "value", None), str))
    ]


def _imports(tree: ast.Module, name: str, is_package: bool) -> Iterator[str]:
    package = name if is_package else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE.name)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            source = importlib.util.resolve_name(source, package) if node.level else source
            if source.split(".")[0] == PACKAGE.name:
                yield source
                yield from (f"{source}.{alias.name}" for alias in node.names)
