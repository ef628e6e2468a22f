from __future__ import annotations

import errno

import pytest

from artifacts.sandbox.libc import checked, libc


def test_the_error_of_a_call_is_an_exception_with_its_number() -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        checked(libc().close(-1))
    assert caught.value.errno == errno.EBADF


def test_any_other_result_is_returned() -> None:
    assert checked(libc().getpid()) > 0
