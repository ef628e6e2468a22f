"""The parts; what a command line is answered with is tried through `doit` in end_to_end/test_output.py."""

from __future__ import annotations

import errno

import pytest
from doit.exceptions import InvalidCommand

from artifacts.cli.doit_commands import Run
from artifacts.cli.options import NOT_OPTIONS, user_errors
from artifacts.errors import StepError


@pytest.mark.parametrize(
    "error", [StepError("a\nb", "c"), OSError(errno.EACCES, "no", "x\ny"), OSError(errno.EISDIR, "no")]
)
def test_a_mistake_and_a_disk_out_of_order_are_told_in_two_lines(error: Exception) -> None:
    with pytest.raises(InvalidCommand) as caught, user_errors():
        raise error
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError(), OSError(errno.ENOENT, "x")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)), user_errors():
        raise error


def test_options_of_what_is_not_used_here_cannot_be_given() -> None:
    from doit.cmd_base import DodoTaskLoader

    options = {option.name: option for option in Run(task_loader=DodoTaskLoader(), cmds={}).get_options()}
    hidden = {name for name, option in options.items() if not option.short and not option.long}
    assert hidden == set(NOT_OPTIONS) & set(options)
    assert len(hidden) == 11
    assert options["num_process"].short == "n"
