"""Mutants of this project's recipes, of small ones, and of one for each step: one of their files is changed."""

from __future__ import annotations

import importlib
import inspect
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from artifacts.plan.step_files import STEPS_PACKAGE, known_steps
from small_project import RECIPE, TOOLS

ROOT = Path(__file__).parent.parent.parent

SMALL_PIPELINE = "default: small\nrecipes: [recipes/*.yaml]\ncache: cache\ndist: dist\n"
PINS = (ROOT / "src" / "artifacts" / "constraints.txt").read_text()
SOURCE = "recipes/notes.txt"
LOCK = f"sources:\n  {SOURCE}: {{sha256: {'a' * 64}}}\n"

SCALARS = (
    "", "~", "null", "true", "-1", "0", "1e999", "-1e999", ".nan", ".inf", "1e-400", "9" * 400, "9" * 100_000, "0x10",
    "1_0", "!!int x", "!!binary aGk=", "!!python/name:os.system ''", "!!set {a}", "!mine x", "! x", "&a x", "*a",
    "[]", "{}", "[[[[]]]]", "{<<: {a: 1}}", "[" * 1000, "{a: " * 1000, "'", '"', "|", ">", "- ", "? ", "%", "@", "`",
    "x" * 300, "x" * 100_000, '"\\0"', '"\\e[31m"', '"a\\nb"', '"\\u202e"', '"\\u2028"', '"\\ud800"', "'[red]'",
    "../..", "/", "/dev/zero", "/dev/null", "/proc/self/mem", ".", "''", "'*'", "'a b'", "'-x'", "con", "ä", "'<key>'",
    "2024-01-01", "1:30", "no", "'1'", "99999999999999999999", "[1, a, null, {}]", "{a: {a: {a: {a: 1}}}}",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, 2**64, 10**400, 1e308, -1e308, 1e-320, "", "x", "x" * 100_000, "\0", "\x1b[31m",
    "a\nb", "\u202e", "\u2028", "[red]", "../..", "/dev/zero", "/", "small", "first", "second", [], {}, [[]], [None],
    ["x"] * 1000, [0] * 10_000, {"": ""}, {"x": None}, {"x" * 1000: 1}, {"a": {"a": {"a": [{}]}}}, {"<key>": 1},
)  # fmt: skip
NAMES = (
    "",
    " ",
    "a\nb",
    "\x1b",
    "x" * 101,
    "x" * 5000,
    "..",
    "-x",
    "con",
    "FIRST",
    "First",
    "ä",
    "null",
    "<<",
    "<key>",
    "*",
)
BOMB = "a: &a [x]\nb: &b [" + "*a, " * 99 + "*a]\nc: [" + "*b, " * 99 + "*b]\n"
TEXTS = (
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"[" * 100_000, b"{a: " * 100_000, b"- " * 100_000, b"? " * 100_000,
    BOMB.encode(), b"- a\n", b"a\n", b"---\n---\n", b"a: 1\n...\nb: 2\n", b"%YAML 9.9\n---\na: 1\n", b"\t",
    b"x" * 2_000_001,
    b"targets:\n" + b"".join(b"  t%d: {step: write_text}\n" % n for n in range(2000)),
    b"targets:\n  t0: {step: write_text}\n"
    + b"".join(b"  t%d: {step: change_text, inputs: {text: t%d}}\n" % (n, n - 1) for n in range(1, 1500)),
    b"targets: {t: {step: write_text, params: {text: [" + b"1," * 100_000 + b"]}}}\n",
)  # fmt: skip


@dataclass
class Mutant:
    """The files of a project {path: bytes}, one of them changed, and how."""

    files: dict[str, bytes]
    changed: str
    told: str
    instead: str = ""

    def write(self, root: Path) -> None:
        """Write the project into the new folder `root`."""
        for name, data in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        for name in ("dodo.py", "pyproject.toml"):
            shutil.copy(ROOT / name, root)
        if self.instead:
            _put_instead(root / self.changed, self.instead)


def _put_instead(path: Path, kind: str) -> None:
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "device":
            path.symlink_to("/dev/zero")
        case "huge":
            path.touch()
            os.truncate(path, 1 << 40)


def mutants(choice: random.Random, count: int) -> Iterator[Mutant]:
    """`count` mutants, the same for the same state of `choice`."""
    bases = [_small(RECIPE), _small(RECIPE), _real(), *(_small(_recipe_of(step)) for step in known_steps())]
    for _ in range(count):
        files = dict(choice.choice(bases))
        changed = choice.choice(sorted(files))
        if choice.random() < 0.03:
            kinds = ("pipe", "folder", "loop", "device", "huge")
            kind = choice.choice(kinds[:-1] if changed == SOURCE else kinds)  # to hash a source of 1 TiB takes an hour
            yield Mutant(files, changed, f"{changed} is a {kind}", kind)
            continue
        told = []
        for _ in range(choice.choice((1, 1, 1, 2, 3))):
            change = choice.choice(CHANGES)
            files[changed] = change(choice, files[changed])
            told.append(change.__name__.strip("_"))
        yield Mutant(files, changed, f"{changed}: {', '.join(told)}: {files[changed][:1000]!r}")


def _small(recipe: str) -> dict[str, bytes]:
    files = {
        "pipeline.yaml": SMALL_PIPELINE,
        "constraints.txt": "".join(f"{name}=={version}\n" for name, version in TOOLS.items()) + PINS,
        "recipes/base.yaml": recipe,
        "recipes/small.yaml": "extends: base.yaml\n" + recipe,
    }
    files |= {"pipeline.lock.yaml": LOCK, SOURCE: "some notes\n"}
    return {name: text.encode() for name, text in files.items()}


def _real() -> dict[str, bytes]:
    folders = ("recipes", "embedded", "experiments")
    names = [path.relative_to(ROOT) for folder in folders for path in sorted(ROOT.glob(f"{folder}/*.yaml"))]
    return {str(name): (ROOT / name).read_bytes() for name in (Path("pipeline.yaml"), *names)}


def _recipe_of(step: str) -> str:
    """A recipe whose one target is this step, with every input and every param."""
    module = importlib.import_module(f"{STEPS_PACKAGE}.{step}")
    inputs = [
        name for name, given in inspect.signature(module.run).parameters.items() if given.kind is given.KEYWORD_ONLY
    ]
    params = module.Params().model_dump(mode="json")
    target = {"step": step, "inputs": dict.fromkeys(inputs, "notes"), "params": params}
    return yaml.safe_dump({"sources": {"notes": {"file": "notes.txt"}}, "targets": {"first": target}}, sort_keys=False)


def _change_lines(choice: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    one, other = choice.randrange(len(lines)), choice.randrange(len(lines))
    match choice.randrange(5):
        case 0:
            del lines[one]
        case 1:
            lines.insert(other, lines[one])
        case 2:
            lines[one], lines[other] = lines[other], lines[one]
        case 3:
            lines[one] = b" " * choice.randrange(9) + lines[one].lstrip()
        case 4:
            lines[one:other] = []
    return b"\n".join(lines)


def _replace_scalar(choice: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    places = [number for number, line in enumerate(lines) if b":" in line]
    if not places:
        return data
    number = choice.choice(places)
    colons = [index for index, byte in enumerate(lines[number]) if byte == ord(":")]
    begin = choice.choice(colons) + 1
    ends = [index for index in range(begin, len(lines[number])) if lines[number][index : index + 1] in (b",", b"}")]
    end = ends[0] if ends and choice.random() < 0.8 else len(lines[number])
    lines[number] = lines[number][:begin] + b" " + choice.choice(SCALARS).encode() + lines[number][end:]
    return b"\n".join(lines)


def _change_bytes(choice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(choice.randrange(1, 5)):
        place = choice.randrange(len(changed) + 1)
        changed[place : place + choice.randrange(3)] = choice.randbytes(choice.randrange(1, 4))
    return bytes(changed)


def _cut_off(choice: random.Random, data: bytes) -> bytes:
    return data[: choice.randrange(len(data) + 1)]


def _replace_text(choice: random.Random, _data: bytes) -> bytes:
    return choice.choice(TEXTS)


def _extend(choice: random.Random, data: bytes) -> bytes:
    base = choice.choice(
        (*SCALARS, "small.yaml", "../recipes/small.yaml", "../pipeline.yaml", "pipeline.lock.yaml", "base.yaml")
    )
    return b"extends: " + base.encode() + b"\n" + data.removeprefix(b"extends: base.yaml\n")


def _change_structure(choice: random.Random, data: bytes) -> bytes:
    try:
        tree = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeError, ValueError, RecursionError):
        return _change_lines(choice, data)
    places = list(_places(tree, 0))
    if not places:
        return data
    parent, key = choice.choice(places)
    match choice.randrange(6):
        case 0:
            del parent[key]
        case 1 | 2:
            parent[key] = choice.choice(VALUES)
        case 3:
            parent[key] = [parent[key]]
        case 4:
            parent[key] = {choice.choice(NAMES): parent[key]}
        case 5 if isinstance(parent, dict):
            parent[choice.choice(NAMES)] = parent.pop(key) if choice.random() < 0.5 else parent[key]
    _no_alias: Callable[[Any, Any], bool] = lambda _self, _value: choice.random() < 0.99  # noqa: E731
    dumper = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": _no_alias})
    text: str = yaml.dump(tree, Dumper=dumper, sort_keys=False, allow_unicode=choice.random() < 0.5, width=1 << 30)
    return text.encode("utf-8", "surrogatepass")


def _places(tree: Any, depth: int) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a tree, twenty levels down."""
    if depth < 20:
        for key, value in list(
            tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
        ):
            yield tree, key
            yield from _places(value, depth + 1)


CHANGES = (
    _change_lines, _replace_scalar, _replace_scalar, _change_bytes, _cut_off, _change_structure, _change_structure,
    _change_structure, _change_structure, _replace_text, _extend,
)  # fmt: skip
