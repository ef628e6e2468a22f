"""Bound the memory that a library may take: a file of a kilobyte can describe a computation on terabytes.

The kernel counts what the process may write (`RLIMIT_DATA`), and refuses more; mapped files are not counted.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifacts.errors import StepError

# 1.5 GiB, for whatever a model takes.
SLACK_BYTES = 3 << 29


def bytes_for_model(file_bytes: int) -> int:
    """The bound for loading a model and running it on next to nothing: SLACK_BYTES and four times its files.

    Weights may be there as they are, widened to float32, and packed for the processor.
    """
    return 4 * file_bytes + SLACK_BYTES


def bytes_for_speech(seconds: float) -> int:
    """The bound for running models that are loaded on a recording, several times what an encoder of 1 billion needs.

    What the convolutions make grows with its length, the scores of attention with the square.
    """
    return SLACK_BYTES + round(20e6 * seconds + 1e5 * seconds**2)


@contextmanager
def bounded_memory(more_bytes: int, fact: str) -> Iterator[None]:
    """Let the process take so many bytes more than it has, while this lasts.

    Raises StepError with the `fact` if it would have taken more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _data_bytes() + more_bytes
    bounds = [limit for limit in (wanted, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    try:
        yield
    except Exception as error:
        if not _is_of_memory(error):
            raise
        raise StepError(
            f"{fact}: takes more than {more_bytes / 2**30:.1f} GiB",
            "export the model again; one that computes much from little is not run",
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _is_of_memory(error: BaseException | None) -> bool:
    """Return whether the exception, or one of its causes, is a failed allocation."""
    while error is not None:
        text = str(error).lower()
        if (
            isinstance(error, MemoryError)
            or "bad_alloc" in text
            or "bad allocation" in text
            or "failed to allocate" in text
        ):
            return True
        error = error.__cause__
    return False


def _data_bytes() -> int:
    """Return the bytes of private writable memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmData in /proc/self/status")
