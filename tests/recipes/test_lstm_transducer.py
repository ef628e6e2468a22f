"""The embedded LSTM transducer, fp32 and with an int8 encoder, gives the same tokens in ncnn and in sherpa-ncnn."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from artifacts.steps import measure_sherpa_ncnn_wer
from conftest import ROOT, run_doit
from word_losses import TOTAL, Rows, losses, read_rows

RECIPE = "lstm-transducer"
CACHE = ROOT / "cache" / RECIPE
NETWORKS = {
    "fp32": ("encoder_sherpa_fp32", "predictor_ncnn_fp32", "joint_ncnn_fp32"),
    "int8": ("encoder_sherpa_int8", "predictor_ncnn_fp16", "joint_ncnn_fp16"),
}
"""`doit lstm-transducer` measures the others, on all speech: int8 of the joint waits for a minute of calibration."""
UTTERANCES = 66


class Measured(NamedTuple):
    """What the step says of a form, and of each utterance."""

    metrics: dict[str, float | int | str]
    rows: Rows


@pytest.fixture(scope="module")
def measured(evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """What each form errs, and in how many recordings sherpa-ncnn gives the same tokens."""
    run_doit("-n", "2", *dict.fromkeys(f"{RECIPE}:{name}" for names in NETWORKS.values() for name in names))
    params = measure_sherpa_ncnn_wer.Params(slices=("clean",), compare_with_sherpa=True)
    found = {}
    for form, (encoder, predictor, joint) in NETWORKS.items():
        out = tmp_path_factory.mktemp(form)
        metrics = measure_sherpa_ncnn_wer.run(
            out,
            params,
            encoder=CACHE / encoder,
            predictor=CACHE / predictor,
            joint=CACHE / joint,
            tokens=ROOT / "embedded" / RECIPE / "checkpoint" / "tokens.txt",
            corpus=evaluation,
        )
        found[form] = Measured(metrics, read_rows(out))
    return found


@pytest.mark.parametrize("form", NETWORKS)
def test_sherpa_ncnn_gives_the_tokens_of_our_own_loop_for_every_recording(
    measured: dict[str, Measured], form: str
) -> None:
    metrics = measured[form].metrics
    assert metrics["sherpa_equal_utterances"] == metrics["utterances"] == UTTERANCES


def test_clean_speech_is_understood_and_in_int8_within_a_point(measured: dict[str, Measured]) -> None:
    fp32, int8 = (measured[form] for form in NETWORKS)
    assert float(fp32.metrics["wer_percent"]) < 5
    assert not losses(int8.rows, fp32.rows)[TOTAL].exceeds(1)
