"""Capabilities: what root may do beyond others, given up (`man 7 capabilities`)."""

from __future__ import annotations

import ctypes
import struct

from artifacts.sandbox.libc import checked, forbid_new_privileges, libc

_VERSION_3 = 0x20080522
# Root reads files of every owner; which files, Landlock says.
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1 << 1, 1 << 2


def drop_capabilities() -> None:
    """Give up every capability but reading and writing files of other owners, for good. Raises OSError."""
    forbid_new_privileges()  # else a program that root starts has them all again
    header = struct.pack("=Ii", _VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    checked(libc().capget(header, sets))
    effective, permitted = struct.unpack_from("=II", sets.raw)
    kept = _DAC_OVERRIDE | _DAC_READ_SEARCH
    # Effective, permitted, inheritable; then the same for the capabilities above 31.
    wanted = struct.pack("=6I", effective & kept, permitted & kept, 0, 0, 0, 0)
    checked(libc().capset(header, wanted))
