"""Landlock: a process gives up access to all files but those it names (Linux 5.13, `man 7 landlock`).

Children inherit the restriction, and no process can undo it. It needs no privileges, and restricts root too.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from artifacts.sandbox.privileges import checked, forbid_new_privileges, libc

# System calls; the numbers are the same on x86-64 and ARM64.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
# Rights that a rule for a file may have; the kernel rejects the others there.
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
# Number of file rights in each version: 13, then moving between folders, truncating, and ioctl of devices.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP_SINCE, _TCP = 4, 0b11  # bind and connect
_SCOPES_SINCE, _SCOPES = 6, 0b11  # abstract sockets, signals


def landlock_version() -> int:
    """Return the version of Landlock that the kernel offers, 0 for none."""
    return max(0, _call(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION))


def restrict_files(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Restrict this process, and all that it starts, to these files and folders: no TCP, and no signals to others.

    A folder includes its content. What is writable is readable. Missing paths are skipped. Raises OSError if the kernel
    has no Landlock.
    """
    version = landlock_version()
    if version == 0:
        raise OSError(ctypes.get_errno(), "Landlock is not available")
    rights = (1 << _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]) - 1
    attributes = struct.pack("=QQQ", rights, _TCP * (version >= _TCP_SINCE), _SCOPES * (version >= _SCOPES_SINCE))
    size = 24 if version >= _SCOPES_SINCE else 16 if version >= _TCP_SINCE else 8
    ruleset = checked(_call(_CREATE_RULESET, attributes, size, 0))
    try:
        for path in readable:
            _allow(ruleset, path, _READ)
        for path in writable:
            _allow(ruleset, path, rights)
        forbid_new_privileges()
        checked(_call(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        rights = rights if path.is_dir() else rights & _OF_A_FILE
        checked(_call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, handle), 0))
    finally:
        os.close(handle)


def _call(number: int, *arguments: bytes | int | None) -> int:
    wide = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return int(libc().syscall(ctypes.c_long(number), *wide))
