from __future__ import annotations

import pytest
from doit.exceptions import InvalidCommand

from artifacts.cli.disabled_commands import Clean, DumpDb, Forget, Ignore, Info, ResetDep, Strace


@pytest.mark.parametrize("command", [Clean, DumpDb, Forget, Ignore, Info, ResetDep, Strace])
def test_a_disabled_command_names_the_one_to_use(command: type[Ignore]) -> None:
    with pytest.raises(InvalidCommand, match=r"^.+\n  fix: .+$"):
        command().execute({}, ["shards"])
