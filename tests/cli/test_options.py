"""The parts; what a command line is answered with is tried through `doit` in end_to_end/test_output.py."""

from __future__ import annotations

import errno

import pytest
from doit.exceptions import InvalidCommand

from artifacts.cli.doit_commands import Run
from artifacts.cli.options import NOT_OPTIONS, options_among, unknown_option, user_errors
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


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["a", "--continue", "-n", "2"], ["--continue", "-n"]),
        (["-cn2", "-n", "-h"], ["-c", "-n", "-n"]),
        (["--process=--help", "--process", "--help", "--all"], ["--process", "--process", "--all"]),
        (["--unknown", "-h", "--", "--all"], ["--unknown", "-h"]),
        (["-", "-n"], ["-n"]),
    ],
)
def test_options_are_told_from_their_values_and_from_targets(words: list[str], found: list[str]) -> None:
    assert list(options_among(words, "cn:", ["continue", "process=", "all"])) == found


def test_the_fix_for_an_unknown_option_is_the_one_that_it_abbreviates_or_resembles() -> None:
    known = ["--out", "--max-shard-bytes", "--model"]
    for option, fix in (
        ("--max", "did you mean '--max-shard-bytes'?"),
        ("--max_shard_bytes", "did you mean '--max-shard-bytes'?"),
        ("--modle", "did you mean '--model'?"),
        ("--zz", "see the list"),
    ):
        assert unknown_option("fact", option, known, "see the list").fix == fix


def test_options_of_what_is_not_used_here_cannot_be_given() -> None:
    from doit.cmd_base import DodoTaskLoader

    options = {option.name: option for option in Run(task_loader=DodoTaskLoader(), cmds={}).get_options()}
    hidden = {name for name, option in options.items() if not option.short and not option.long}
    assert hidden == set(NOT_OPTIONS) & set(options)
    assert len(hidden) == 11
    assert options["num_process"].short == "n"
    assert options["num_process"].default is None, "0 is refused where it is typed"
