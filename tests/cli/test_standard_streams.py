"""What is printed to a pipe whose reader has left ends nothing, and leaves no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
UNBUFFERED = BUFFERED | {"PYTHONUNBUFFERED": "1"}
START = "import sys; from artifacts.cli.standard_streams import prepare_streams as prepare; prepare(); prepare(); "


def run_without_reader(code: str, stream: str, environment: dict[str, str]) -> tuple[int, str]:
    """Run Python with one of its streams a pipe that nobody reads. Returns the exit code and the other stream."""
    ours, theirs = os.pipe()
    os.close(ours)
    other = "stderr" if stream == "stdout" else "stdout"
    streams = {stream: theirs, other: subprocess.PIPE}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, text=True, check=False, **streams)  # type: ignore[call-overload]
    os.close(theirs)
    return ended.returncode, getattr(ended, other)


@pytest.mark.parametrize("environment", [BUFFERED, UNBUFFERED], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_left_ends_no_program(environment: dict[str, str], lines: int, stream: str) -> None:
    other = "stderr" if stream == "stdout" else "stdout"
    code = f"for _ in range({lines}): print('some words', file=sys.{stream})\nprint('end', file=sys.{other})"
    assert run_without_reader(f"{START}\n{code}", stream, environment) == (0, "end\n")


@pytest.mark.parametrize("environment", [BUFFERED, UNBUFFERED], ids=["buffered", "unbuffered"])
def test_what_is_printed_arrives_whole_and_in_its_order(environment: dict[str, str]) -> None:
    code = f"{START}print('before')\nfor i in range(20000): print(i, 'ä')\nprint('\\udcff')"
    environment = environment | {"PYTHONIOENCODING": "utf-8"}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    assert out.decode().splitlines() == ["before", *(f"{i} ä" for i in range(20000)), r"\udcff"]


def test_a_stream_that_the_shell_closed_takes_what_is_printed() -> None:
    command = f"\"$0\" -c \"{START}print('a'); print('b', file=sys.stderr)\" >&- 2>&-"
    assert subprocess.run(["bash", "-c", command, sys.executable], check=False).returncode == 0


@pytest.mark.parametrize("words", [["--help"], ["step"], ["step", "shard_weights", "--help"], ["init", "new"]])
def test_the_console_script_needs_no_reader(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = f"from artifacts.cli.init import main; raise SystemExit(main({words}))"
    assert run_without_reader(code, "stdout", UNBUFFERED) == (0, "")
    assert (tmp_path / "new" / "dodo.py").exists() == (words[0] == "init")
