"""A warning is one printable line, whatever it quotes."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import logging
from artifacts.cli.warning_lines import print_warnings_in_lines
print_warnings_in_lines()
logging.getLogger("artifacts.any").warning("%s is damaged", "\\x1b[2J\\n" + "x" * 200_000)
"""


def test_a_warning_that_quotes_a_long_path_with_terminal_commands_is_one_short_line() -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stderr
    (line,) = said.splitlines()
    assert line.startswith("WARNING: \\x1b[2J\\nxxx")
    assert line.endswith("is damaged")
    assert len(line) == 1000
    assert line.isprintable()
