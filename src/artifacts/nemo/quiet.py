"""Log NeMo's messages at debug level instead of printing them.

NeMo writes notes and warnings about training, GPUs and telemetry to stderr whenever it is imported or restores a model,
and takes over Python's warnings. None of them concerns an export.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

log = logging.getLogger(__name__)

_LOGGERS = ("nemo_logger", "nv_one_logger")


class _ToDebug(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log.debug("%s: %s", record.name, record.getMessage())


@contextmanager
def quiet() -> Iterator[None]:
    """Log NeMo's messages and all Python warnings at debug level; restore handlers, levels and filters at the end."""
    # The first import installs NeMo's own handlers, also for warnings: it comes before any of them are replaced.
    with warnings.catch_warnings(record=True), _redirected("nv_one_logger"):
        import nemo.utils  # noqa: F401  # for its handlers
    with warnings.catch_warnings(record=True) as caught, ExitStack() as restored:
        warnings.simplefilter("default")
        for name in _LOGGERS:
            restored.enter_context(_redirected(name))
        try:
            yield
        finally:
            for warning in caught:
                log.debug("%s: %s", warning.category.__name__, warning.message)


@contextmanager
def _redirected(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    handlers, propagate, level = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [_ToDebug()], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
