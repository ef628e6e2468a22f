"""Give up privileges for good, by calls of the C library (`man 7 capabilities`)."""

from __future__ import annotations

import ctypes
import os
import struct


def libc() -> ctypes.CDLL:
    """Return the C library of this process."""
    return ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    """Return the result of a call. Raises OSError with the call's error number where it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def forbid_new_privileges() -> None:
    """Forbid this process to gain privileges by a program; the kernel requires this before it confines."""
    checked(libc().prctl(38, 1, 0, 0, 0))  # PR_SET_NO_NEW_PRIVS


_VERSION_3 = 0x20080522
# Root still reads files of every owner; Landlock restricts which files.
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1 << 1, 1 << 2


def drop_capabilities() -> None:
    """Give up every capability but reading and writing files of other owners, for good. Raises OSError."""
    forbid_new_privileges()  # else a program that root starts gets them all again
    header = struct.pack("=Ii", _VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    checked(libc().capget(header, sets))
    effective, permitted = struct.unpack_from("=II", sets.raw)
    kept = _DAC_OVERRIDE | _DAC_READ_SEARCH
    # Effective, permitted, inheritable; then the same for the capabilities above 31.
    wanted = struct.pack("=6I", effective & kept, permitted & kept, 0, 0, 0, 0)
    checked(libc().capset(header, wanted))
