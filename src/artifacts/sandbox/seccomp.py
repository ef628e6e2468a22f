"""seccomp: a filter that answers some system calls instead of the kernel (`man 2 seccomp`).

It forbids what Landlock allows: sockets of every kind, memory and limits of other processes, and the modes, owners and
times of other people's files.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct
from collections.abc import Iterator

from artifacts.sandbox.privileges import checked, forbid_new_privileges, libc

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# Classic BPF: load a word at an offset, jump if equal, jump if at least, return, and.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN, _AND = 0x20, 0x15, 0x35, 0x06, 0x54
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_X32 = 0x40000000  # bit of the numbers of the same calls in the x32 ABI

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Calls by their answer, with their numbers for x86-64 and ARM64 (None: no such call).
_CALLS: dict[int, dict[str, tuple[int | None, int | None]]] = {
    errno.EACCES: {
        "socket": (41, 198),
    },
    errno.ENOSYS: {  # programs have a fallback
        "io_uring_setup": (425, 425),  # opens sockets that no filter sees
    },
    errno.EPERM: {
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "add_key": (248, 217),
        "request_key": (249, 218),
        "keyctl": (250, 219),
        # A namespace in which the process is root exposes many parts of the kernel.
        "unshare": (272, 97),
        "setns": (308, 268),
        "setpriority": (141, 140),  # changes the user's other programs
        # Memory, semaphores and queues of the user's other programs (System V): no rule for files applies to them.
        "shmget": (29, 194),
        "shmat": (30, 196),
        "shmctl": (31, 195),
        "semget": (64, 190),
        "semop": (65, 193),
        "semctl": (66, 191),
        "semtimedop": (220, 192),
        "msgget": (68, 186),
        "msgsnd": (69, 189),
        "msgrcv": (70, 188),
        "msgctl": (71, 187),
        "truncate": (76, 45),  # by path; an open file can still be truncated
        # All processes that a step starts stay in its process group, and end with it.
        "setsid": (112, 157),
        "setpgid": (109, 154),
    },
    errno.EOPNOTSUPP: {
        "setxattr": (188, 5),
        "lsetxattr": (189, 6),
        "fsetxattr": (190, 7),
        "removexattr": (197, 14),
        "lremovexattr": (198, 15),
        "fremovexattr": (199, 16),
        "setxattrat": (463, 463),
        "removexattrat": (466, 466),
    },
    # Answered with success, but not done: libraries copy modes along with files, and sealing sets the modes. Times are
    # allowed: some programs set them to test whether a file exists (`touch`).
    0: {
        "chmod": (90, None),
        "fchmod": (91, 52),
        "fchmodat": (268, 53),
        "fchmodat2": (452, 452),
        "chown": (92, None),
        "fchown": (93, 55),
        "lchown": (94, None),
        "fchownat": (260, 54),
    },
}

# Calls that are allowed for one value of an argument: index, bits that count, their value, and the error otherwise.
_ONLY: dict[str, tuple[tuple[int, int], int, int, int, int]] = {
    # Two ends of a stream are connected to each other; a datagram socket can send to any local socket.
    "socketpair": ((53, 199), 1, 0xF, socket.SOCK_STREAM, errno.EACCES),
    # Its own limits (process 0) alone: a limit of processor time can kill another process, which no scope prevents.
    "prlimit64": ((302, 261), 0, 0xFFFFFFFF, 0, errno.EPERM),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def restrict_calls() -> None:
    """Install the filter for this process, and all that it starts.

    Raises OSError if the kernel or the processor has no such filter.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no filter for {machine}")
    instructions = list(_filter(machine))
    program = _Program(len(instructions), b"".join(instructions))
    forbid_new_privileges()
    checked(libc().prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0))


def _filter(machine: str) -> Iterator[bytes]:
    """Yield the instructions: refuse another architecture's calls, then answer each call of the table."""

    def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    yield instruction(_LOAD, _ARCHITECTURE_AT)
    yield instruction(_IF_EQUAL, _ARCHITECTURES[machine], if_true=1)
    yield instruction(_RETURN, _ERRNO | errno.EPERM)
    yield instruction(_LOAD, _NUMBER_AT)
    yield instruction(_IF_AT_LEAST, _X32, if_false=1)
    yield instruction(_RETURN, _ERRNO | errno.ENOSYS)
    column = list(_ARCHITECTURES).index(machine)
    for answer, calls in _CALLS.items():
        for numbers in calls.values():
            if (number := numbers[column]) is not None:
                yield instruction(_IF_EQUAL, number, if_false=1)
                yield instruction(_RETURN, _ERRNO | answer)
    for both, argument, bits, wanted, answer in _ONLY.values():
        yield instruction(_IF_EQUAL, both[column], if_false=5)
        yield instruction(_LOAD, _ARGUMENTS_AT + 8 * argument)  # its lower half: both processors are little-endian
        yield instruction(_AND, bits)
        yield instruction(_IF_EQUAL, wanted, if_false=1)
        yield instruction(_RETURN, _ALLOW)
        yield instruction(_RETURN, _ERRNO | answer)
    yield instruction(_RETURN, _ALLOW)
