"""Standard output and standard error that outlive their reader, as in `doit list | head -1`."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Outlet(io.FileIO):
    """File descriptor of a standard stream. Once the reader has closed the pipe, writes go to /dev/null."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


def prepare_streams() -> None:
    """Let nothing that is printed end the process: a reader that leaves, a closed stream, a character that is lacking.

    A second call changes nothing. A build goes on without a reader, and no command prints a traceback for its lack.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell: `>&-`
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # to the end of the process
        elif isinstance(stream, io.TextIOWrapper):  # a terminal may lack characters of a recipe or of a path
            stream.reconfigure(errors="backslashreplace")
            if type(stream) is io.TextIOWrapper and stream is getattr(sys, f"__{name}__"):
                setattr(sys, name, _outliving(stream))


def _outliving(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    outlet = _Outlet(stream.fileno(), "w", closefd=False)
    # Under `python -u`, a stream has no buffer.
    buffer = outlet if isinstance(stream.buffer, io.FileIO) else io.BufferedWriter(outlet)
    return io.TextIOWrapper(
        buffer,
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
