"""Capabilities: what root may do beyond others, given up (`man 7 capabilities`)."""

from __future__ import annotations

import ctypes
import os
import struct

from artifacts.sandbox.landlock import forbid_new_privileges

_VERSION_3 = 0x20080522
# Root reads files of every owner; which files, Landlock says.
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1 << 1, 1 << 2


def drop_capabilities() -> None:
    """Give up every capability but reading and writing files of other owners, for good. Raises OSError."""
    forbid_new_privileges()  # else a program that root starts has them all again
    libc = ctypes.CDLL(None, use_errno=True)
    header = struct.pack("=Ii", _VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    if libc.capget(header, sets) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    effective, permitted = struct.unpack_from("=II", sets.raw)
    kept = _DAC_OVERRIDE | _DAC_READ_SEARCH
    # Effective, permitted, inheritable; then the same for the capabilities above 31.
    wanted = struct.pack("=6I", effective & kept, permitted & kept, 0, 0, 0, 0)
    if libc.capset(header, wanted) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
