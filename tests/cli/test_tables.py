from __future__ import annotations

import io
import re
import sys

import pytest

from artifacts.cli.tables import counted, print_summary, size_text
from artifacts.run.outcome import Outcome
from artifacts.store.journal import Status


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1234, "1.23 kB"), (12345, "12.3 kB"), (999_400, "999 kB"),
     (5_908_480, "5.91 MB"), (2_438_000_000, "2.44 GB"), (123_456_000_000, "123.46 GB")],
)  # fmt: skip
def test_sizes_read_as_people_read_them(size: int, text: str) -> None:
    assert size_text(size) == text


def test_a_noun_is_singular_for_one() -> None:
    assert [counted(count, "record") for count in (0, 1, 2)] == ["0 records", "1 record", "2 records"]
    assert counted(1, "this or that", "these") == "1 this or that"
    assert counted(3, "this or that", "these") == "3 these"


def test_a_run_with_nothing_to_do_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary([Outcome("x:a", Status.UNCHANGED, 1), Outcome("x:b", Status.UNCHANGED, 1)], 0.04, {})
    assert capsys.readouterr().out == "2 targets, all unchanged (0.0 s)\n"


def test_what_was_measured_is_told_with_its_processor(capsys: pytest.CaptureFixture[str]) -> None:
    wer = Outcome("x:wer", Status.BUILT, 1, measured_on="AMD EPYC (AVX2)")
    print_summary([wer, Outcome("x:encoder", Status.BUILT, 1)], 1, {})
    assert capsys.readouterr().out.splitlines()[-2:] == ["measured on: AMD EPYC (AVX2)", "2 built (1.0 s)"]
    drift = Outcome("x:drift", Status.RESTORED, 1, measured_on="Intel Xeon (AVX-512, VNNI)")
    print_summary([wer, drift, Outcome("x:size", Status.BUILT, 1)], 1, {})
    assert capsys.readouterr().out.splitlines()[-3:-1] == [
        "measured on AMD EPYC (AVX2): x:wer",
        "measured on Intel Xeon (AVX-512, VNNI): x:drift",
    ]


def test_what_is_trusted_and_what_no_sandbox_keeps_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    open_to_all = Outcome("x:encoder", Status.BUILT, 1, trusts=("x:checkpoint",), unconfined=("files", "network"))
    print_summary([open_to_all, Outcome("x:joint", Status.UNCHANGED, 1, trusts=("x:checkpoint",))], 1.0, {})
    said = capsys.readouterr().out
    assert said.count("\ntrusted by its recipe (it may name any class): x:checkpoint\n") == 1
    assert "\nWARNING: no sandbox for files and network: " in said
    print_summary([Outcome("x:encoder", Status.BUILT, 1)], 1.0, {})
    said = capsys.readouterr().out
    assert "trusted" not in said
    assert "WARNING" not in said


def test_the_table_has_a_row_for_each_target(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Outcome(
            "x:a",
            Status.BUILT,
            2_438_000_000,
            61.25,
            900_000_000,
            {"unseen": 0, "max_abs_difference": 1.25e-5, "casts": 12},
        ),
        Outcome("x:b", Status.NOT_TRIED),
        Outcome("x:c", Status.FAILED),
    ]
    print_summary(rows, 62, {"x:a": ("max_abs_difference", "casts", "none")})
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert any(
        re.fullmatch(r"x:a +built +2.44 GB +61.2 +900 MB +max_abs_difference 1.25e-05, casts 12", line)
        for line in lines
    )
    assert "x:b     not tried" in lines
    assert lines[-1] == "1 built, 1 not tried, 1 failed (62.0 s)"


def test_word_error_rates_have_a_table_of_their_own_by_slice(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Outcome(
            "x:wer_fp32",
            Status.BUILT,
            1,
            metrics={"wer_percent_clean": 1.0, "wer_percent_noisy": 5.125, "wer_percent": 3.0},
        ),
        Outcome("x:wer_int8", Status.UNCHANGED, 1, metrics={"wer_percent_clean": 1.5, "words": 300}),
    ]
    print_summary(rows, 1, {"x:wer_int8": ("words",)})
    out = capsys.readouterr().out
    assert re.search(r"slice +x:wer_fp32 +x:wer_int8", out)
    assert re.search(r"clean +1.00 +1.50", out)
    assert re.search(r"noisy +5.12$", out, flags=re.MULTILINE)
    assert re.search(r"all +3.00$", out, flags=re.MULTILINE)
    assert "words 300" in out


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let standard output be a terminal of 80 columns."""
    monkeypatch.setattr("artifacts.cli.tables._width", lambda: 80)


def many_rows(count: int) -> list[Outcome]:
    metrics = {"max_abs_difference": 1.25e-5, "casts": 12, "wer_percent_clean": 1.0, "wer_percent": 2.0}
    return [
        Outcome(f"tiny:encoder_int8_smoothquant_{index}", Status.BUILT, 2_438_000_000, 61.25, 900_000_000, metrics)
        for index in range(count)
    ]


@pytest.mark.usefixtures("terminal")
def test_on_a_narrow_terminal_no_line_is_longer_and_metrics_have_lines_of_their_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [*many_rows(5), Outcome("tiny:encoder", Status.UNCHANGED, 1)]
    print_summary(rows, 62, {row.target: ("max_abs_difference", "casts") for row in rows})
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines.count("word error rate, %, by slice") == 1
    assert len([line for line in lines if line.startswith("slice ")]) == 3, "two targets side by side in each table"
    assert re.search(r"^all( +2\.00){2}$", out, flags=re.MULTILINE)
    assert "metrics" not in out
    row = r"tiny:encoder_int8_smoothquant_0  built      2\.44 GB     61\.2       900 MB"
    assert re.search(rf"^{row}\n    max_abs_difference 1\.25e-05, casts 12\ntiny:", out, flags=re.MULTILINE)


@pytest.mark.usefixtures("terminal")
def test_metrics_that_fit_are_beside_their_target_on_a_terminal_too(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary([Outcome("x:a", Status.BUILT, 1, metrics={"casts": 12})], 1, {"x:a": ("casts",)})
    assert re.search(r"^x:a +built +1 B +casts 12$", capsys.readouterr().out, flags=re.MULTILINE)


def test_without_metrics_there_is_no_column_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary([Outcome("x:a", Status.BUILT, 1)], 1, {"x:a": ("casts",)})
    assert "metrics" not in capsys.readouterr().out


@pytest.mark.parametrize("width", [None, 80])
def test_no_line_of_a_table_ends_with_blanks(
    width: int | None, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if width is not None:
        request.getfixturevalue("terminal")
    rows = [*many_rows(9), Outcome("x:b", Status.NOT_TRIED)]
    print_summary(rows, 62, {row.target: ("max_abs_difference", "casts") for row in rows})
    assert [line for line in capsys.readouterr().out.splitlines() if line != line.rstrip()] == []


def test_in_a_pipe_a_row_is_never_folded(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary([Outcome("x:a", Status.BUILT, 1, metrics={"text": "y" * 300})], 1, {"x:a": ("text",)})
    assert f"text {'y' * 300}\n" in capsys.readouterr().out


def test_a_table_is_aligned_by_the_columns_of_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"wer_percent_中文": 1.0, "wer_percent_four": 22.0}
    print_summary([Outcome("x:a", Status.BUILT, 1, metrics=metrics)], 1, {})
    out = capsys.readouterr().out
    assert "\n中文    1.00\nfour   22.00\n" in out


def test_a_terminal_without_line_characters_is_sent_dashes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("artifacts.cli.tables.sys.stdout", io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True))
    print_summary([Outcome("x:a", Status.BUILT, 1)], 1, {})
    raw = sys.stdout.buffer.getvalue()  # type: ignore[attr-defined]
    assert b"\n" + b"-" * 42 + b"\n" in raw


HOSTILE = "[red]a[/nothing] :smile: \x1b[31m\u202e\n\udcff"
SHOWN = r"[red]a[/nothing] :smile: \x1b[31m\u202e\n\udcff"


def test_texts_from_outside_are_one_printable_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    wers = {"wer_percent": 1.0, f"wer_percent_{HOSTILE}": 2.0, "wer_percent_text": "[bold]"}
    rows = [Outcome("x:a", Status.BUILT, 1, metrics={HOSTILE: 1, **wers}, measured_on=HOSTILE)]
    print_summary(rows, 1, {"x:a": (HOSTILE,)})
    out = capsys.readouterr().out
    assert out.count(SHOWN) == 3, "a metric, a slice, a processor"
    assert out.replace("\n", "").isprintable()
