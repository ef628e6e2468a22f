"""A small project of its own in a folder: the real package, the real `doit`, and steps that take no time.

The package is copied, so that a test may change its code; the steps of `small_steps/` are put among its own.
"""

from __future__ import annotations

import compileall
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from artifacts.digest import digest_file
from artifacts.files.stamps import FINE_MARGIN, SECOND
from artifacts.store.digest_memory import DigestMemory

HERE = Path(__file__).parent
DOIT = [sys.executable, "-m", "doit"]
TOOLS = {name: importlib.metadata.version(name) for name in ("PyYAML", "numpy", "onnx", "protobuf")}

RECIPE = """\
sources:
  notes:
    file: notes.txt
targets:
  first:
    step: write_text
    params:
      text: one
      lines: 3
  second:
    step: change_text
    inputs: {text: first}
    params: {upper: true}
  third:
    step: change_text
    inputs: {text: second}
    params: {suffix: .}
layouts:
  flat:
    step: change_text
    inputs: {text: third, more: first}
"""


@dataclass(frozen=True)
class Ended:
    """A process that ended: exit code, what it said, and how long it took."""

    code: int
    out: str
    err: str
    seconds: float


class Project:
    """A project of its own, with a package of its own, and one recipe called `small`."""

    def __init__(self, root: Path, package: Path) -> None:
        self.root = root
        self.package = package / "artifacts"
        self.cache = root / "cache"
        self.recipe_file = root / "recipes" / "small.yaml"

    def recipe(self, text: str) -> None:
        """Write the recipe."""
        self.recipe_file.write_text(text)

    def replace(self, old: str, new: str, *, path: Path | None = None) -> None:
        """Change one place in the recipe, or in another file."""
        path = path or self.recipe_file
        text = path.read_text()
        assert text.count(old) == 1, f"{path}: {text.count(old)} times {old!r}"
        path.write_text(text.replace(old, new))

    def doit(self, *words: str, cwd: Path | None = None, environment: Mapping[str, str] = {}) -> Ended:
        """Run `doit` with these words to its end."""
        started = time.monotonic()
        process = self.start(*words, cwd=cwd, environment=environment)
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Ended(process.returncode, out, err, time.monotonic() - started)

    def start(self, *words: str, cwd: Path | None = None, environment: Mapping[str, str] = {}) -> subprocess.Popen[str]:
        """Start `doit` with these words."""
        return subprocess.Popen(
            [*DOIT, *words],
            cwd=cwd or self.root,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The environment that `doit` runs in: with this project's own package."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV", "HF_"))}
        return kept | {"PYTHONPATH": str(self.package.parent), "NO_COLOR": "1"}

    def journal(self, *outcomes: str) -> list[str]:
        """The targets in the journal, without the recipe's name, of these outcomes."""
        path = self.cache / "journal.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [entry["target"].partition(":")[2] for entry in lines if entry["outcome"] in outcomes]

    def built(self) -> list[str]:
        """The targets that were built so far, each as often as its step ran."""
        return self.journal("built")

    def text(self, target: str) -> str:
        """What a target's `text.txt` says."""
        return (self.cache / "small" / target / "text.txt").read_text()

    def artifact(self, target: str) -> Path:
        """The folder of a target's artifact in the store."""
        return (self.cache / "small" / target).resolve().parent

    def rot(self, path: Path) -> None:
        """Flip a bit of a file as a disk does, below the file system: what is remembered of the file stays."""
        digest, data = digest_file(path), bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        time.sleep(2 * FINE_MARGIN / SECOND)
        memory = DigestMemory(self.cache / "digests.sqlite")
        memory.note(path, digest)
        memory.close()
        memory = DigestMemory(self.cache / "digests.sqlite")
        assert memory.digest(path) == digest != digest_file(path)
        memory.close()

    def files(self) -> dict[str, bytes]:
        """Everything in the project but what is remembered about files and the package: {path: bytes}."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = str(path.relative_to(self.root))
            if path.is_symlink():
                found[name] = os.fsencode(path.readlink())
            elif path.is_file() and not name.startswith("cache/digests.sqlite"):
                found[name] = path.read_bytes()
        return found


def make_package(folder: Path) -> Path:
    """A copy of the package with the small steps, compiled."""
    source = HERE.parents[1] / "src" / "artifacts"
    shutil.copytree(source, folder / "artifacts", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (HERE / "small_steps").glob("*.py"):
        shutil.copy2(path, folder / "artifacts" / "steps")
    compileall.compile_dir(folder, quiet=1)
    return folder


def make_project(root: Path, package: Path, recipe: str = RECIPE) -> Project:
    """A project with `recipe`, in the new folder `root`."""
    project = Project(root, package)
    project.recipe_file.parent.mkdir(parents=True)
    for name in ("dodo.py", "pyproject.toml"):
        shutil.copy(HERE.parents[1] / name, root)
    (root / "pipeline.yaml").write_text("default: small\n")
    (root / "constraints.txt").write_text("".join(f"{name}=={version}\n" for name, version in TOOLS.items()))
    (root / "recipes" / "notes.txt").write_text("some notes\n")
    project.recipe(recipe)
    return project


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with the small steps, shared by all tests that do not change it."""
    return make_package(tmp_path_factory.mktemp("package"))


@pytest.fixture
def project(tmp_path: Path, package: Path) -> Project:
    """A project in which nothing is built yet."""
    return make_project(tmp_path / "project", package)


@pytest.fixture
def own_project(tmp_path: Path, package: Path) -> Project:
    """A project whose package the test may change."""
    shutil.copytree(package, tmp_path / "package")
    return make_project(tmp_path / "project", tmp_path / "package")


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Project:
    """A project in which all is built; not to be changed."""
    project = make_project(tmp_path_factory.mktemp("built") / "project", package)
    ended = project.doit()
    assert ended.code == 0, ended.err
    return project


@pytest.fixture
def built_project(tmp_path: Path, package: Path, built_once: Project) -> Project:
    """A project in which all is built, to be changed."""
    shutil.copytree(built_once.root, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", package)
