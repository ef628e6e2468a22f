from __future__ import annotations

import pytest
from doit.exceptions import InvalidCommand

from artifacts.cli.disabled_commands import Clean, DumpDb, Forget, Ignore, Info, ResetDep, Strace


@pytest.mark.parametrize("command", [Clean, DumpDb, Forget, Ignore, Info, ResetDep, Strace])
def test_what_means_nothing_here_is_refused_with_what_does(command: type[Ignore]) -> None:
    with pytest.raises(InvalidCommand, match=r"^.+\n  fix: .+$"):
        command().execute({}, ["shards"])
