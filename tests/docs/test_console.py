"""Where a page shows a command and what it prints, the command prints that.

A number with a unit stands for any such number, `…` for any text, and a line of it for any lines. There may be more
lines of progress than a page shows: a slow machine prints more of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from doc_blocks import DOCS, blocks, copy_of_checkout, run_shell

PAGES = [page for page in sorted(DOCS.rglob("*.md")) if blocks(page, "console")]
UNITS = r"(?:s|min|B|kB|MB|GB)\b"
PROGRESS = r"(?: +building .*\n)*?"


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a block, each with the lines that it prints."""
    command, said = "", list[str]()
    for line in block.splitlines():
        if line.startswith("> ") and not said:
            command += f"\n{line[2:]}"
        elif line.startswith("$ "):
            if command:
                yield command, said
            command, said = line[2:], []
        else:
            said.append(line)
    yield command, said


def pattern(said: list[str]) -> str:
    """A regular expression for what is printed."""
    return "".join(r"(?:.*\n)*?" if line == "…" else f"{PROGRESS}{_of_line(line)}\\s*\n" for line in said)


def _of_line(line: str) -> str:
    parts = re.split(rf"(\d[\d.,]* {UNITS})|(…)|(\s+)", line)
    return "".join(_of_part(*parts[index : index + 4]) for index in range(0, len(parts), 4))


def _of_part(text: str, figure: str | None = None, anything: str | None = None, space: str | None = None) -> str:
    figures = rf"\d[\d.,]* {UNITS}" if figure else ""
    return re.escape(text) + figures + (".*" if anything else "") + (r"\s+" if space else "")


def test_there_are_pages_with_commands() -> None:
    assert {page.name for page in PAGES} >= {"tutorial.md", "one-file.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_command_prints_what_the_page_shows(page: Path, whole_recipe: Path, tmp_path: Path) -> None:
    project = copy_of_checkout(tmp_path / "project")
    for block in blocks(page, "console"):
        for command, said in commands(block):
            _, printed = run_shell(command, project)
            assert re.fullmatch(pattern(said), printed), f"$ {command}\n{printed}\ninstead of\n" + "\n".join(said)
