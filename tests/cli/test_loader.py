"""The parts; what a command line is answered with is tried through `doit` in end_to_end/test_output.py."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from artifacts.cli.loader import Loader
from artifacts.cli.options import UserError


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", ""], "ERROR: a word of the command line is empty\n  fix: "),
        (["--fi", "dodo.py", "list"], "ERROR: option --fi not recognized\n  fix: did you mean '--file'?"),
        (["plan", "a=b"], "ERROR: 'a=b': no target has a '=' in its name\n  fix: "),
    ],
)
def test_words_that_doit_fails_on_end_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["doit", *words])
    with pytest.raises(SystemExit, match="3"):
        Loader()
    assert capsys.readouterr().err.startswith(said)


def test_an_option_may_have_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["doit", "list", "--sort=name"])
    assert Loader()


@pytest.mark.parametrize(
    ("words", "command", "read"), [(["small"], {}, ["small"]), ([], {"of_all_recipes": True}, None)]
)
def test_the_words_of_a_command_reach_the_session(
    monkeypatch: pytest.MonkeyPatch, words: list[str], command: dict[str, bool], read: list[str] | None
) -> None:
    monkeypatch.setattr(sys, "argv", ["doit"])
    loaded = []
    loader = Loader()
    loader.namespace = {"SESSION": SimpleNamespace(load=loaded.append)}
    loader.load_tasks(SimpleNamespace(execute_tasks=False, **command), words)
    assert loaded == [read]


def test_a_working_folder_that_was_removed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["doit"])
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UserError, match="the working folder: No such file or directory\n  fix: go to the project's"):
        Loader().setup({"dodoFile": "dodo.py"})
