"""Word losses of each quantised form, of the embedded checkpoint and of the same with an outlier channel.

The tables are printed, slice by slice: the plain model transcribes all of the evaluation, the other one what is short
or a minute long, and stock int8 the minutes with either (`doit tiny-forms tiny-outliers` does all). An outlier channel
leaves fp32 as it is to the bit (`tests/steps/test_inject_outliers.py`), so that one fp32 serves both.

A bound is a one-sided test at the level of `word_losses`, with the scatter of the rows' differences to fp32; the tables
print the loss from which a slice is red. All of the speech together has a bound of its own. `doit -n 2 tiny-long`
transcribes seven times the words of a long slice in a quarter of an hour: docs/results.md has its table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import ROOT, run_doit
from measured_words import measure_words
from word_losses import TOTAL, Loss, Rows, exceeding, losses, read_rows, wer_percent

PLAIN, OUTLIERS = "tiny-forms", "tiny-outliers"
FORMS = ("fp32", "int8", "int8_smoothquant")
# Points that a form may lose on a slice, and on all of the speech.
BOUNDS = {PLAIN: {"int8": 0.3, "int8_smoothquant": 0.3}, OUTLIERS: {"int8": 1.0, "int8_smoothquant": 0.5}}
TOTAL_BOUNDS = {PLAIN: {"int8": 0.3, "int8_smoothquant": 0.3}, OUTLIERS: {"int8": 0.5, "int8_smoothquant": 0.25}}
MINUTE = "long_60s"
# Of the model with an outlier channel.
MEASURED_SLICES = ("clean", "noisy_1db", "noisy_minus_1db", "noisy_minus_3db", "soft_endings", MINUTE)


@dataclass(frozen=True)
class Measured:
    """Each form's word error rate in percent by slice, `total` among them, and what it loses against fp32."""

    wer: dict[str, dict[str, float]]
    loss: dict[str, dict[str, Loss]]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """The forms of each recipe, against fp32 of the plain model."""
    run_doit("-n", "2", *(f"{PLAIN}:wer_{form}" for form in FORMS))
    found = {form: read_rows(ROOT / "cache" / PLAIN / f"wer_{form}") for form in FORMS}
    targets = [f"wer_{form}" for form in FORMS if form != "fp32"]
    folders = measure_words(tmp_path_factory.mktemp("measured"), OUTLIERS, targets, MEASURED_SLICES)
    outliers = {target.removeprefix("wer_"): read_rows(folder) for target, folder in folders.items()}
    outliers = {"fp32": [row for row in found["fp32"] if row["slice"] in MEASURED_SLICES], **outliers}
    return {PLAIN: _measured(found), OUTLIERS: _measured(outliers)}


def _measured(rows: dict[str, Rows]) -> Measured:
    lost = {form: losses(rows[form], rows["fp32"]) for form in rows}
    return Measured({form: {name: wer_percent(rows[form], name) for name in lost[form]} for form in rows}, lost)


def _show(capsys: pytest.CaptureFixture[str], recipe: str, found: Measured) -> None:
    with capsys.disabled():
        print(f"\n\n  {recipe}, WER in %    fp32{''.join(f'{form:>34}' for form in FORMS[1:])}")
        for name, wer in found.wer["fp32"].items():
            shown = ""
            for form in FORMS[1:]:
                one = found.loss[form][name]
                bounds, among = (TOTAL_BOUNDS, 1) if name == TOTAL else (BOUNDS, len(found.wer["fp32"]) - 1)
                red = one.smallest_shown(bounds[recipe][form], among=among)
                shown += f"{found.wer[form][name]:>10.2f} {one.points:+6.2f} ±{one.scatter:5.2f} (red {red:5.2f})"
            print(f"  {name:<18}{wer:10.2f}{shown}")


@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.parametrize("recipe", BOUNDS)
def test_block_quantised_and_smoothed_forms_hold_their_words_with_an_outlier_channel_too(
    measured: dict[str, Measured], recipe: str, form: str
) -> None:
    lost = measured[recipe].loss[form]
    assert not lost[TOTAL].exceeds(TOTAL_BOUNDS[recipe][form])
    assert exceeding(lost, BOUNDS[recipe][form], but_for=[TOTAL]) == []


def test_stock_int8_is_ruined_by_an_outlier_channel_and_harmless_without_one(
    measured: dict[str, Measured], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stock = {}
    for recipe in (PLAIN, OUTLIERS):
        (tmp_path / recipe).mkdir()
        measured_now = measure_words(tmp_path / recipe, recipe, ["wer_int8_dynamic"], [MINUTE])
        rows = read_rows(measured_now["wer_int8_dynamic"])
        fp32 = [row for row in read_rows(ROOT / "cache" / PLAIN / "wer_fp32") if row["slice"] == MINUTE]
        stock[recipe] = losses(rows, fp32)[MINUTE]
        _show(capsys, recipe, measured[recipe])
        with capsys.disabled():
            print(f"  {MINUTE}, stock int8: {wer_percent(rows, MINUTE):.2f}")
    assert stock[OUTLIERS].exceeds(10)
    assert not stock[PLAIN].exceeds(1)
