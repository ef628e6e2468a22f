from __future__ import annotations

import re

import pytest

from artifacts.cli.tables import print_summary, size_text
from artifacts.run.outcome import Outcome
from artifacts.store.journal import Status


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1234, "1.23 kB"), (12345, "12.3 kB"), (999_400, "999 kB"),
     (5_908_480, "5.91 MB"), (2_438_000_000, "2.44 GB"), (123_456_000_000, "123.46 GB")],
)  # fmt: skip
def test_sizes_read_as_people_read_them(size: int, text: str) -> None:
    assert size_text(size) == text


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
    assert "x:b      not tried" in lines
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
    assert re.search(r"noisy +5.12 *$", out, flags=re.MULTILINE)
    assert re.search(r"all +3.00 *$", out, flags=re.MULTILINE)
    assert "words 300" in out


HOSTILE = "[red]a[/nothing] :smile: \x1b[31m\u202e\n\udcff"
SHOWN = r"[red]a[/nothing] :smile: \x1b[31m\u202e\n\udcff"


def test_texts_from_outside_are_one_printable_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    wers = {"wer_percent": 1.0, f"wer_percent_{HOSTILE}": 2.0, "wer_percent_text": "[bold]"}
    rows = [Outcome("x:a", Status.BUILT, 1, metrics={HOSTILE: 1, **wers}, measured_on=HOSTILE)]
    print_summary(rows, 1, {"x:a": (HOSTILE,)})
    out = capsys.readouterr().out
    assert out.count(SHOWN) == 3, "a metric, a slice, a processor"
    assert out.replace("\n", "").isprintable()
