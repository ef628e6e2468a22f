"""Keep a command running when its output cannot be written, for example after `doit list | head -1`."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _PipeSafeFile(io.FileIO):
    """A standard stream's file. Once the reader has closed the pipe, writes go to /dev/null."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.fileno())
            os.close(devnull)
            return super().write(data)


def prepare_streams() -> None:
    """Prepare stdout and stderr for closed pipes, closed streams, and characters that the terminal cannot encode.

    A second call changes nothing. Output to a closed pipe is discarded, and a build goes on.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell: `>&-`
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  # to the end of the process
        elif isinstance(stream, io.TextIOWrapper):  # a terminal may lack characters of a recipe or of a path
            stream.reconfigure(errors="backslashreplace")
            if type(stream) is io.TextIOWrapper and stream is getattr(sys, f"__{name}__"):
                setattr(sys, name, _pipe_safe(stream))


def _pipe_safe(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    stream.flush()
    outlet = _PipeSafeFile(stream.fileno(), "w", closefd=False)
    # Under `python -u`, a stream has no buffer.
    buffer = outlet if isinstance(stream.buffer, io.FileIO) else io.BufferedWriter(outlet)
    return io.TextIOWrapper(
        buffer,
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
