"""A file for `tarfile` to read, within bounds.

`tarfile` reads a header as long as it claims to be, calls itself for each header that describes the next one, and
moves backwards for a size below zero. A budget of bytes for all headers together ends each of these.
"""

from __future__ import annotations

from typing import Protocol

# A header that describes the next one has some 30 bytes, and `tarfile` takes quadratic time for it.
LONGEST_HEADER_BYTES = 512


class BoundError(Exception):
    """The archive exceeds a bound. The text, which follows "the archive", says which."""


class Seekable(Protocol):
    """The methods of a file that are used."""

    def tell(self) -> int:
        """The position."""

    def seek(self, position: int, /) -> int:
        """Go to a position."""

    def read(self, count: int, /) -> bytes:
        """At most so many bytes."""


class BoundedReader:
    """Read `file` up to the position `end`, None for its own end.

    `header_bytes_left`: bytes that may still be read, in reads of at most 512; None once the headers are known.
    """

    def __init__(self, file: Seekable, end: int | None, header_bytes: int) -> None:
        self._file, self._end = file, end
        self.header_bytes_left: int | None = header_bytes

    def tell(self) -> int:
        """The position, in bytes."""
        return self._file.tell()

    def seek(self, position: int) -> int:
        """Go to a position. Raises BoundError beyond the end."""
        self._check(position)
        return self._file.seek(position)

    def read(self, count: int) -> bytes:
        """Read at most `count` bytes. Raises BoundError beyond the end, or the bounds of headers."""
        if self.header_bytes_left is not None:
            self.header_bytes_left -= count
            if count > LONGEST_HEADER_BYTES or self.header_bytes_left < 0:
                raise BoundError("has too many members, or too long a header")
        self._check(self._file.tell() + count)
        return self._file.read(count)

    def _check(self, position: int) -> None:
        if self._end is not None and position > self._end:
            raise BoundError(f"unpacks to more than {self._end} bytes, out of proportion to its size")
