"""Turn the exceptions of a library into StepErrors: their classes share no base, and some are private."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from artifacts.errors import StepError

MAX_REASON_CHARACTERS = 300


@contextmanager
def foreign_errors(package: str, fact: str, fix: str) -> Iterator[None]:
    """Raise StepError(`fact` with the reason in one line, `fix`) for an exception that comes from `package`.

    An exception comes from a package if its class is defined there, or if code of the package raised it. MemoryError,
    StepError and exceptions of our own code are passed on.
    """
    try:
        yield
    except (StepError, MemoryError):
        raise
    except Exception as error:
        if not (_is_of(type(error).__module__, package) or _is_of(_raised_in(error), package)):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        if len(reason) > MAX_REASON_CHARACTERS:
            reason = reason[:MAX_REASON_CHARACTERS] + "…"
        raise StepError(f"{fact}: {reason}", fix) from error


def _is_of(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _raised_in(error: BaseException) -> str:
    """Return the name of the module whose code raised the exception."""
    trace, module = error.__traceback__, ""
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return module
