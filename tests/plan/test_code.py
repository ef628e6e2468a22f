from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from artifacts.plan import code
from artifacts.plan.code import code_of, forget_code, read_code
from artifacts.store.digest_memory import DigestMemory

STEP = '''\
"""A step."""
from artifacts.kit.sums import add
LIMIT = 3
"""What a limit is."""

class Params:
    """Params."""
    size: int = 1
    """How large."""

def run(out, params, *, model):
    """Run it."""
    # a comment
    from artifacts.kit import late
    total = add(params.size, LIMIT)
    return late.show(total)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package called `artifacts`, with one step and one kit."""
    package = tmp_path / "artifacts"
    for folder in (package, package / "steps", package / "kit"):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    (package / "steps" / "make.py").write_text(STEP)
    (package / "kit" / "sums.py").write_text("def add(a, b):\n    return a + b\n\ndef other():\n    pass\n")
    (package / "kit" / "late.py").write_text("import numpy\nfrom . import sums\ndef show(x):\n    return x\n")
    (package / "kit" / "unused.py").write_text("X = 1\n")
    (package / "errors.py").write_text("X = 1\n")
    monkeypatch.setattr(code, "PACKAGE", package)
    return package


def look(package: Path) -> dict[str, dict[str, str]]:
    """Return the digests of the code as it is now."""
    return code_of("artifacts.steps.make", DigestMemory(package.parent / "memory"))


def test_every_definition_that_a_step_reaches_has_a_digest(package: Path) -> None:
    found = look(package)
    assert {module: sorted(names) for module, names in found.items()} == {
        "artifacts.kit.late": ["module level", "show"],
        "artifacts.kit.sums": ["add", "other"],
        "artifacts.steps.make": ["LIMIT", "Params", "module level", "run"],
    }
    assert all(len(digest) == 16 for names in found.values() for digest in names.values())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "# another, longer comment"),
        ('"""Run it."""', '"""Run it well.\n\n    At length.\n    """'),
        ('"""A step."""', '"""Another step."""'),
        ('"""How large."""', '"""How large, in bytes."""'),
        ('"""What a limit is."""', '"""What the limit is."""'),
        ("LIMIT = 3", "LIMIT  =  3"),
        ("LIMIT = 3", 'LIMIT = 3\nHEADLINE = ("size",)'),
        ("add(params.size, LIMIT)", "add(\n        params.size,\n        LIMIT,\n    )"),
    ],
)
def test_comments_docstrings_and_spaces_change_no_digest(package: Path, old: str, new: str) -> None:
    before = look(package)
    (package / "steps" / "make.py").write_text(STEP.replace(old, new))
    assert look(package) == before


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("LIMIT = 3", "LIMIT = 4", {"LIMIT"}),
        ("LIMIT = 3", "LIMIT = 3.0", {"LIMIT"}),
        ("size: int = 1", "size: int = True", {"Params"}),
        ("total = ", "whole = ", {"run"}),
        ("*, model", "model", {"run"}),
        ("import add", "import add as plus", {"module level"}),
        ("add(params.size, LIMIT)", "add(LIMIT, params.size)", {"run"}),
    ],
)
def test_a_changed_algorithm_changes_the_digest_of_its_definition(
    package: Path, old: str, new: str, changed: set[str]
) -> None:
    before = look(package)["artifacts.steps.make"]
    (package / "steps" / "make.py").write_text(STEP.replace(old, new, 1))
    after = look(package)["artifacts.steps.make"]
    assert {name for name in before | after if before.get(name) != after.get(name)} == changed


def test_the_order_of_what_runs_at_import_counts_and_that_of_definitions_does_not(package: Path) -> None:
    step = package / "steps" / "make.py"
    step.write_text('NAMES = ["a"]\nNAMES += ["b"]\nALL = "".join(NAMES)\ndef one(): pass\ndef two(): pass\n')
    before = look(package)["artifacts.steps.make"]
    step.write_text('NAMES = ["a"]\nALL = "".join(NAMES)\nNAMES += ["b"]\ndef two(): pass\ndef one(): pass\n')
    after = look(package)["artifacts.steps.make"]
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"order of statements"}


def test_a_change_in_an_imported_module_shows_where_it_is(package: Path) -> None:
    before = look(package)
    (package / "kit" / "sums.py").write_text("def add(a, b):\n    return b + a\n\ndef other():\n    pass\n")
    after = look(package)
    assert after["artifacts.steps.make"] == before["artifacts.steps.make"]
    assert after["artifacts.kit.sums"]["add"] != before["artifacts.kit.sums"]["add"]
    assert after["artifacts.kit.sums"]["other"] == before["artifacts.kit.sums"]["other"]


def test_unreached_modules_and_error_texts_are_not_its_code(package: Path) -> None:
    before = look(package)
    (package / "kit" / "unused.py").write_text("X = 2\n")
    (package / "errors.py").write_text("X = 2\n")
    (package / "steps" / "other.py").write_text("X = 2\n")
    assert look(package) == before


def test_code_that_runs_when_a_package_is_imported_counts(package: Path) -> None:
    (package / "kit" / "__init__.py").write_text("import os\nos.environ['X'] = '1'\n")
    assert "artifacts.kit" in look(package)


def test_code_is_read_with_the_digests_of_its_files(package: Path) -> None:
    memory = DigestMemory(package.parent / "memory")
    found = read_code("artifacts.steps.make", memory)
    assert found.definitions == code_of("artifacts.steps.make", memory)
    paths = {"artifacts.steps.make": package / "steps" / "make.py", "artifacts.kit.sums": package / "kit" / "sums.py"}
    for module, path in paths.items():
        assert found.files[module] == hashlib.sha256(path.read_bytes()).hexdigest()
    (package / "kit" / "sums.py").write_text("# a comment\n" + (package / "kit" / "sums.py").read_text())
    again = read_code("artifacts.steps.make", memory)
    assert again.definitions == found.definitions
    assert {module for module, digest in again.files.items() if found.files[module] != digest} == {"artifacts.kit.sums"}


def test_code_that_was_forgotten_is_read_again(package: Path) -> None:
    time.sleep(0.2)
    memory = DigestMemory(package.parent / "memory")
    before = read_code("artifacts.steps.make", memory)
    step = package / "steps" / "make.py"
    stat = step.stat()
    memory.remember(step, "another kind", lambda _path: "remembered")
    forget_code("artifacts.steps.make", memory)
    assert memory.remember(step, "another kind", lambda _path: "read again") == "read again"
    assert step.stat().st_ctime_ns == stat.st_ctime_ns
    assert read_code("artifacts.steps.make", memory) == before


# Syntax whose trees differ between Python 3.11, 3.12 and 3.13, and characters that only some of them know.
EVERY_SYNTAX = '''\
from __future__ import annotations
import dataclasses

@dataclasses.dataclass(frozen=True)
class Shape(tuple[int, ...], metaclass=type):
    """A shape."""
    sizes: tuple[int, ...] = ()
    def text(self, *, width=3, **others: int) -> str:
        return f"{self!r:>{width}}{width:}{self.sizes[0]:{width}.{width + 1}f} {{}}" f"" f"{width=}"

async def stream(source, /):
    async for chunk in source:
        if (size := len(chunk)) > 1e9:
            yield chunk[size // 2 :, ...]

def kinds(*values):
    def empty(): pass
    try:
        match values:
            case [int() | float(), *rest] if rest: return lambda: rest
            case {"kind": Shape(sizes=(1, _))}: return None
    except* (OSError, ValueError) as errors:
        raise errors from None

TEXTS = ["×", "\u2013", "\U0001f642", "\U0001fae8", "\ufffe", b"\\xff", 1e400, 2j, ...]
TABLE: dict[str, int] = {}
TABLE["\U0001fae8"] = 1
'''


def test_every_python_gives_the_same_digests(package: Path) -> None:
    (package / "steps" / "make.py").write_text(EVERY_SYNTAX, encoding="utf-8")
    assert look(package) == {
        "artifacts.steps.make": {
            "Shape": "699cf98873f619eb",
            "TABLE": "f0759084240a27e6",
            "TABLE['\\U0001fae8']": "ef3e143864d20a2d",
            "TEXTS": "23d408998568f51d",
            "kinds": "1b9aa2595844c711",
            "module level": "fb63ecc5dbfbfaaf",
            "order of statements": "e61e4845da7ddbe8",
            "stream": "5fef91244585b0e9",
        }
    }
