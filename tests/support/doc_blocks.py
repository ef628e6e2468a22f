"""Code blocks of the documentation, and a project in which what they say is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# What a checkout has, without its tests and sources: the package comes from this checkout.
PARTS = (
    "dodo.py", "pipeline.yaml", "pipeline.lock.yaml", "pyproject.toml", "recipe.schema.json", "recipes", "embedded",
    "experiments", "cache", "dist",
)  # fmt: skip


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language in a page, those in a list item without its indentation."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


def copy_of_checkout(folder: Path) -> Path:
    """Copy the project of this checkout with what it has built, so that a page can change and damage it."""
    folder.mkdir()
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("staging", "locks"))
        else:
            shutil.copy2(source, folder / name)
    return folder


def run_shell(command: str, folder: Path) -> tuple[int, str]:
    """Run a command as a reader does; returns its exit code, and what it prints."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, text=True, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, done.stdout
