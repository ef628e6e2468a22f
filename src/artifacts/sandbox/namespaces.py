"""Namespaces: an own view of the files, read-only but for some folders, and no network.

For kernels without Landlock. Unprivileged user namespaces may be forbidden (`man 7 user_namespaces`).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from artifacts.sandbox.privileges import checked, libc

_NEWNS, _NEWIPC, _NEWUSER, _NEWNET = 0x00020000, 0x08000000, 0x10000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MOUNT_SETATTR = 442  # a system call; the same number on x86-64 and ARM64
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1


def restrict_view(hidden: Iterable[Path], readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Make every file read-only for this process but those below `writable`, and take the network away.

    The `hidden` folders are empty, but for paths in them that are readable or writable. The process must have one
    thread. Raises OSError if namespaces are forbidden; changes until then stay.
    """
    user, group = os.getuid(), os.getgid()
    checked(libc().unshare(_NEWUSER | _NEWNS | _NEWNET | _NEWIPC))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _mount(None, "/", _MS_REC | _MS_PRIVATE)
    writable = [path.resolve() for path in writable]
    kept = [path.resolve() for path in (*readable, *writable) if path.exists()]
    for folder in (path.resolve() for path in hidden):
        if folder.is_dir() and folder not in (*kept, Path("/")):
            _empty(folder, [path for path in kept if path.is_relative_to(folder)])
    for folder in writable:
        _mount(folder, folder, _MS_BIND)  # a separate mount can have its own attributes
    _set_attributes(Path("/"), struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0), _AT_RECURSIVE)
    for folder in writable:
        _set_attributes(folder, struct.pack("=QQQQ", 0, _MOUNT_ATTR_RDONLY, 0, 0), 0)
    os.chdir(Path.cwd())  # enters the new mount


def _empty(folder: Path, kept: list[Path]) -> None:
    """Mount an empty file system over the folder, and the kept paths into it again."""
    handles = {path: os.open(path, os.O_PATH) for path in kept}
    _mount("tmpfs", folder, 0, "tmpfs")
    for path in sorted(handles):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            inside = Path(f"/proc/self/fd/{handles[path]}")
            path.mkdir() if inside.is_dir() else path.touch()
            _mount(inside, path, _MS_BIND | _MS_REC)
        os.close(handles[path])


def _mount(source: Path | str | None, target: Path | str, flags: int, kind: str = "") -> None:
    checked(
        libc().mount(
            os.fsencode(source) if source else None,
            os.fsencode(target),
            kind.encode() or None,
            ctypes.c_ulong(flags),
            None,
        )
    )


def _set_attributes(path: Path, attributes: bytes, flags: int) -> None:
    checked(
        libc().syscall(
            _MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), flags, attributes, ctypes.c_size_t(len(attributes))
        )
    )
