"""Warnings of the log as single printable lines on standard error."""

from __future__ import annotations

import logging

from artifacts.errors import printable


def print_warnings_in_lines() -> None:
    """Let each warning that no handler takes be one printable line, whatever path or server's answer it quotes."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Line())


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(f"{record.levelname}: {record.getMessage()}")
