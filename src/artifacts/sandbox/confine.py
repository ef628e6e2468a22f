"""Confine a step's process: it reads the system, Python and its inputs, writes its staging folder, has no network."""

from __future__ import annotations

import contextlib
import os
import pwd
import site
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from artifacts.sandbox.landlock import landlock_version, restrict_files
from artifacts.sandbox.namespaces import restrict_view
from artifacts.sandbox.privileges import drop_capabilities
from artifacts.sandbox.seccomp import restrict_calls

# Programs, libraries, the kernel's view of the machine, and the files of /etc that loaders and libraries read.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store", "/proc", "/sys")
_OF_ETC = (
    "alternatives", "group", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload", "localtime", "mime.types",
    "nsswitch.conf", "os-release", "passwd", "timezone",
)  # fmt: skip
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


@dataclass(frozen=True)
class Confinement:
    """Mechanisms of the kernel that confine a process, for files and for the network; empty if there is none."""

    files: str
    network: str


def confine(inputs: Iterable[Path], staging: Path) -> Confinement:
    """Confine this process, and all that it starts, for good.

    It can read the system's programs and libraries, Python's, this package and the inputs; it can write `staging`. It
    can open no socket. Call this before a second thread starts. The result says what the kernel could not do.
    """
    readable = [*_of_the_system(), *_of_python(), *(real for path in inputs for real in _with_linked(path))]
    writable = [staging, *map(Path, _DEVICES)]
    files = network = ""
    if landlock_version():
        restrict_files(readable, writable)
        files = "Landlock"
    else:
        with contextlib.suppress(OSError):  # forbidden to users by some distributions, and in most containers
            restrict_view(_homes(), readable, [staging])
            files = network = "namespaces"
    with contextlib.suppress(OSError):  # the process has no privileges
        drop_capabilities()
    with contextlib.suppress(OSError):  # a kernel without filters, or an emulator
        restrict_calls()
        network = "seccomp"
    return Confinement(files, network)


def _homes() -> Iterator[Path]:
    """Yield the folders to hide: the home of this user, and those of all users."""
    yield from (Path("/home"), Path("/root"))
    with contextlib.suppress(KeyError):  # a container may run as a user without a name
        yield Path(pwd.getpwuid(os.getuid()).pw_dir)


def _of_the_system() -> Iterator[Path]:
    yield from map(Path, _SYSTEM)
    yield from (Path("/etc", name) for name in _OF_ETC)


def _of_python() -> Iterator[Path]:
    """Yield the folders that modules come from."""
    paths = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, *sys.path}
    paths |= {os.path.realpath(sys.executable), site.getusersitepackages()}
    # A library under development may be imported by a finder of setuptools, not by sys.path.
    finders = [module for name, module in sys.modules.items() if name.startswith("__editable__")]
    paths |= {path for finder in finders for path in getattr(finder, "MAPPING", {}).values()}
    yield from (Path(path) for path in paths if path)
    yield Path(__file__).parents[2]


def _with_linked(path: Path) -> Iterator[Path]:
    """Yield an input, and the targets of links in its folder: a download cache's folder consists of links."""
    yield path
    if path.is_dir():
        for parent, _, names in os.walk(path):
            inside = (Path(parent, name) for name in names)
            yield from (linked.resolve() for linked in inside if linked.is_symlink() and linked.is_file())
