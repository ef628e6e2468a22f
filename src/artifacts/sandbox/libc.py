"""The C library, called by its functions' names; its errors as OSError."""

from __future__ import annotations

import ctypes
import os


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
    """Forbid this process to gain privileges by what it starts; the kernel asks for it before it confines."""
    checked(libc().prctl(38, 1, 0, 0, 0))  # PR_SET_NO_NEW_PRIVS
