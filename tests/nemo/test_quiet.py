from __future__ import annotations

import logging
import warnings

import pytest

from artifacts.nemo.quiet import quiet


def test_what_nemo_says_becomes_a_debug_record(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, logger="artifacts.nemo.quiet")
    with quiet():
        from nemo.utils import logging as nemo_logging

        nemo_logging.warning("no GPU here")
        warnings.warn("old habits", FutureWarning, stacklevel=1)
    said = [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "artifacts.nemo.quiet"]
    assert (logging.DEBUG, "nemo_logger: no GPU here") in said
    assert (logging.DEBUG, "FutureWarning: old habits") in said
    assert capfd.readouterr() == ("", "")


def test_a_level_that_somebody_set_hides_nothing_and_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="nemo_logger")
    caplog.set_level(logging.DEBUG, logger="artifacts.nemo.quiet")
    with quiet():
        logging.getLogger("nemo_logger").warning("no GPU here")
    assert "nemo_logger: no GPU here" in caplog.messages
    assert logging.getLogger("nemo_logger").level == logging.ERROR


def test_afterwards_all_is_as_before() -> None:
    with quiet():
        pass
    loggers = [logging.getLogger(name) for name in ("nemo_logger", "nv_one_logger")]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers], warnings.filters[:], warnings.showwarning
    with pytest.raises(ZeroDivisionError), quiet():
        raise ZeroDivisionError
    after = [(logger.handlers[:], logger.propagate) for logger in loggers], warnings.filters[:], warnings.showwarning
    assert after == before
