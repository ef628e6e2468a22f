"""Bound the memory that a library may take: a file of a kilobyte can describe a computation on terabytes.

The kernel counts the process's writable memory (`RLIMIT_DATA`), and refuses more; mapped files are not counted.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifacts.errors import StepError

# 1.5 GiB, for a model of any size.
SLACK_BYTES = 3 << 29


def bytes_for_model(file_bytes: int) -> int:
    """Return the bound for loading a model and running it on small inputs: SLACK_BYTES and four times its files.

    Weights may be in memory as they are, widened to float32, and packed for the processor.
    """
    return 4 * file_bytes + SLACK_BYTES


def bytes_for_speech(seconds: float) -> int:
    """Return the bound for running loaded models on a recording: several times the need of 1 billion parameters.

    Outputs of convolutions grow with its length, scores of attention with its square.
    """
    return SLACK_BYTES + round(20e6 * seconds + 1e5 * seconds**2)


@contextmanager
def bounded_memory(more_bytes: int, fact: str) -> Iterator[None]:
    """Bound the memory of the process to `more_bytes` more than it has now; lift the bound at the end.

    Raises StepError with the `fact` if an allocation failed.
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
            "export the model again: its computation is far larger than its file",
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
