from __future__ import annotations

import json

import pytest

from artifacts.errors import StepError
from artifacts.untrusted.foreign_errors import MAX_REASON_CHARACTERS, foreign_errors


def test_an_exception_of_the_package_becomes_a_step_error_of_one_line() -> None:
    with pytest.raises(StepError) as raised, foreign_errors("json", "the file", "write it again"):
        json.loads("[1,\n")
    assert raised.value.fact == "the file: Expecting value: line 2 column 1 (char 4)"
    assert raised.value.fix == "write it again"


def test_an_exception_that_code_of_the_package_raised_counts_whatever_its_class() -> None:
    with (
        pytest.raises(StepError, match="the JSON object must be str, bytes or bytearray, not int"),
        foreign_errors("json", "the file", "write it again"),
    ):
        json.loads(1)  # type: ignore[arg-type]


def test_a_long_reason_is_cut() -> None:
    with pytest.raises(StepError) as raised, foreign_errors("json", "x", "y"):
        raise json.JSONDecodeError("a " * 1000, "", 0)
    assert raised.value.fact.startswith("x: a a a")
    assert raised.value.fact.endswith("…")
    assert len(raised.value.fact) <= len("x: ") + MAX_REASON_CHARACTERS + 1


@pytest.mark.parametrize("error", [KeyError("own"), MemoryError(), StepError("fact", "fix"), KeyboardInterrupt()])
def test_every_other_exception_is_passed_on(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, foreign_errors("json", "x", "y"):
        raise error
    assert raised.value is error


def test_a_package_is_recognised_by_its_whole_name() -> None:
    with pytest.raises(json.JSONDecodeError), foreign_errors("js", "x", "y"):
        json.loads("")
