"""What each quantised form costs in words: of the embedded checkpoint, and of it with an outlier channel put in.

The tables are printed, slice by slice: the plain model hears all of the evaluation, the other one what is short or a
minute long, and stock int8 the minutes with either (`doit tiny-forms tiny-outliers` hears all). An outlier channel
leaves fp32 as it is to the bit (`tests/steps/test_inject_outliers.py`), so that one fp32 serves both.

One place of a recording that tips over decides up to a sentence, in either direction: what a slice loses is known to
within its scatter, the standard error of the rows' differences to fp32. A slice may pass its bound by as much as chance
explains (two standard errors); all of the speech together may not, nor may a slice that is large enough to tell.
`doit -n 2 tiny-long` hears seven times the words of a long slice in a quarter of an hour: README.md has what it found.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import ROOT, run_doit
from heard_words import hear
from word_losses import Loss, loss

PLAIN, OUTLIERS = "tiny-forms", "tiny-outliers"
FORMS = ("fp32", "int8", "int8_smoothquant")
MINUTE = "long_60s"
HEARD = ("clean", "noisy_1db", "noisy_minus_1db", "noisy_minus_3db", "soft_endings", MINUTE)
"""By the model with an outlier channel."""


@dataclass(frozen=True)
class Measured:
    """Each form's word error rate in percent by slice, `total` among them, and what it loses against fp32."""

    wer: dict[str, dict[str, float]]
    loss: dict[str, dict[str, Loss]]


Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """The forms of each recipe, against fp32 of the plain model."""
    run_doit("-n", "2", *(f"{PLAIN}:wer_{form}" for form in FORMS))
    found = {form: _rows(ROOT / "cache" / PLAIN / f"wer_{form}") for form in FORMS}
    targets = [f"wer_{form}" for form in FORMS if form != "fp32"]
    heard = hear(tmp_path_factory.mktemp("heard"), OUTLIERS, targets, HEARD)
    outliers = {target.removeprefix("wer_"): _rows(folder) for target, folder in heard.items()}
    outliers = {"fp32": [row for row in found["fp32"] if row["slice"] in HEARD], **outliers}
    return {PLAIN: _measured(found), OUTLIERS: _measured(outliers)}


def _measured(rows: dict[str, Rows]) -> Measured:
    slices = [*dict.fromkeys(row["slice"] for row in rows["fp32"]), "total"]
    return Measured(
        {form: {name: _wer(rows[form], name) for name in slices} for form in rows},
        {form: {name: _loss(rows[form], rows["fp32"], name) for name in slices} for form in rows},
    )


def _rows(folder: Path) -> Rows:
    return [json.loads(line) for line in (folder / "hypotheses.jsonl").read_text(encoding="utf-8").splitlines()]


def _errors(rows: Rows, name: str) -> list[int]:
    kinds = ("substitutions", "deletions", "insertions")
    return [sum(int(row[kind]) for kind in kinds) for row in rows if name in (row["slice"], "total")]


def _words(rows: Rows, name: str) -> int:
    return sum(len(row["text"].split()) for row in rows if name in (row["slice"], "total"))


def _wer(rows: Rows, name: str) -> float:
    return 100 * sum(_errors(rows, name)) / _words(rows, name)


def _loss(rows: Rows, before: Rows, name: str) -> Loss:
    return loss(_errors(rows, name), _errors(before, name), _words(rows, name))


def _show(capsys: pytest.CaptureFixture[str], recipe: str, found: Measured) -> None:
    with capsys.disabled():
        print(f"\n\n  {recipe}, WER in %    fp32{''.join(f'{form:>24}' for form in FORMS[1:])}")
        for name, wer in found.wer["fp32"].items():
            cells = ((found.wer[form][name], found.loss[form][name]) for form in FORMS[1:])
            shown = "".join(f"{value:>10.2f} {loss.points:+6.2f} ±{loss.scatter:5.2f}" for value, loss in cells)
            print(f"  {name:<18}{wer:10.2f}{shown}")


@pytest.mark.parametrize("form", ["int8", "int8_smoothquant"])
def test_block_quantised_and_smoothed_forms_hold_their_words_on_every_slice(
    measured: dict[str, Measured], form: str
) -> None:
    lost = measured[PLAIN].loss[form]
    assert lost["total"].points <= 0.3
    assert [name for name, one in lost.items() if not one.is_within(0.3)] == []


@pytest.mark.parametrize(("form", "bound"), [("int8", 1.0), ("int8_smoothquant", 0.5)])
def test_they_hold_them_with_an_outlier_channel_too(measured: dict[str, Measured], form: str, bound: float) -> None:
    lost = measured[OUTLIERS].loss[form]
    assert lost["total"].points <= bound / 2
    assert [name for name, one in lost.items() if not one.is_within(bound)] == []


def test_stock_int8_is_ruined_by_an_outlier_channel_and_harmless_without_one(
    measured: dict[str, Measured], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stock = {}
    for recipe in (PLAIN, OUTLIERS):
        (tmp_path / recipe).mkdir()
        heard = hear(tmp_path / recipe, recipe, ["wer_int8_dynamic"], [MINUTE])
        stock[recipe] = _wer(_rows(heard["wer_int8_dynamic"]), MINUTE)
        _show(capsys, recipe, measured[recipe])
        with capsys.disabled():
            print(f"  {MINUTE}, stock int8: {stock[recipe]:.2f}")
    fp32 = measured[PLAIN].wer["fp32"][MINUTE]
    assert stock[OUTLIERS] >= fp32 + 10
    assert stock[PLAIN] <= fp32 + 1


def test_a_loss_that_is_beyond_chance_is_not_within_the_bound() -> None:
    assert Loss(0.3, 0.1).is_within(0.3)
    assert not Loss(0.31, 0.1).is_within(0.3)
    assert Loss(0.6, 0.2).is_within(0.3)
    assert not Loss(0.8, 0.2).is_within(0.3)
