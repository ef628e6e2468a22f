from __future__ import annotations

import io

import pytest  # noqa: TC002  # the annotations of fixtures alone
from rich.console import Console

from artifacts.cli import progress as module
from artifacts.cli.progress import Progress
from artifacts.errors import StoreError
from artifacts.plan.explain import NEVER_BUILT
from artifacts.run.outcome import Outcome
from artifacts.store.journal import Status


def test_each_ended_target_is_a_line_with_how_many_are_done(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.begin(12, dict)
    progress.unchanged()
    progress.started("x:encoder", ["params.a: 1 -> 2", "tools.onnx: 1 -> 2"])
    progress.ended(Outcome("x:encoder", Status.BUILT, 5_908_480, 1.26))
    progress.ended(Outcome("x:other", Status.UNCHANGED, 10))
    progress.ended(Outcome("x:third", Status.RESTORED, 10))
    progress.started("x:fourth", [NEVER_BUILT])
    progress.close()
    assert capsys.readouterr().out == (
        "        building x:encoder: params.a: 1 -> 2\n"
        "                            tools.onnx: 1 -> 2\n"
        " [2/12] built x:encoder  5.91 MB  1.3 s\n"
        " [4/12] restored x:third  10 B\n"
        "        building x:fourth\n"
    )


def test_what_is_left_is_told_by_the_seconds_of_earlier_runs(capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def estimate() -> dict[str, float]:
        asked.append(True)
        return {"x:a": 30.0, "x:b": 200.0, "x:c": 99.4, "x:d": 0.2}

    progress = Progress()
    progress.begin(5, estimate)
    progress.ended(Outcome("x:source", Status.FOUND, 10))
    assert not asked, "a run with nothing to build does not wait for an estimate"
    for name in "abcd":
        progress.started(f"x:{name}", [NEVER_BUILT])
        progress.ended(Outcome(f"x:{name}", Status.BUILT, 10, 1.0))
    assert len(asked) == 1
    ended = [line for line in capsys.readouterr().out.splitlines() if "[" in line]
    assert ended == [
        "[1/5] found x:source  10 B",
        "[2/5] built x:a  10 B  1.0 s  (5 min left)",
        "[3/5] built x:b  10 B  1.0 s  (100 s left)",
        "[4/5] built x:c  10 B  1.0 s",
        "[5/5] built x:d  10 B  1.0 s",
    ]


def test_a_run_whose_rest_cannot_be_estimated_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    def estimate() -> dict[str, float]:
        raise StoreError("no", "no")

    progress = Progress()
    progress.begin(1, estimate)
    progress.started("x:a", [NEVER_BUILT])
    progress.ended(Outcome("x:a", Status.BUILT, 10))
    assert capsys.readouterr().out == "      building x:a\n[1/1] built x:a  10 B\n"


def test_progress_in_plain_lines_is_sparse(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress()
    progress.begin(2, dict)
    progress.started("x:encoder", [])
    for done in range(100):
        progress.progressed("x:encoder", "converting tensors", done, 100)
    assert capsys.readouterr().out == "      building x:encoder\n"
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.0)
    progress.progressed("x:encoder", "converting tensors", 42, 100)
    progress.progressed("x:source", "fetching, bytes", 5, None)
    progress.progressed("x:source", "thinking", None, None)
    assert capsys.readouterr().out == (
        "        x:encoder: converting tensors 42 of 100\n"
        "        x:source: fetching, bytes 5\n"
        "        x:source: thinking\n"
    )


def test_after_the_end_nothing_is_shown_any_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.0)
    progress = Progress()
    progress.close()
    progress.progressed("x:encoder", "still at work", 1, 2)
    assert capsys.readouterr().out == ""


HOSTILE = "[red]a[/nothing] :smile: \x1b[31m\u202e\n\udcff"
SHOWN = r"[red]a[/nothing] :smile: \x1b[31m\u202e\n\udcff"


def test_texts_from_outside_are_one_printable_line_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.0)
    progress = Progress()
    progress.begin(1, dict)
    progress.started("x:a", [HOSTILE, HOSTILE])
    progress.progressed("x:a", HOSTILE, 1, 2)
    progress.close()
    assert capsys.readouterr().out == (
        f"      building x:a: {SHOWN}\n                    {SHOWN}\n        x:a: {SHOWN} 1 of 2\n"
    )


def test_a_step_s_words_on_a_terminal_are_no_markup() -> None:
    progress = Progress()
    progress._terminal = True
    progress.progressed("x:a", HOSTILE, 1, 2)
    live = progress._display()
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(live.make_tasks_table(live.tasks))
    progress.close()
    assert SHOWN in console.file.getvalue()  # type: ignore[attr-defined]
