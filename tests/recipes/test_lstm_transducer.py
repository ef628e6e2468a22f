"""The embedded LSTM transducer in fp32 and with an int8 encoder, heard in ncnn and in sherpa-ncnn: the same tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.steps import measure_ncnn_wer
from conftest import ROOT, run_doit

RECIPE = "lstm-transducer"
CACHE = ROOT / "cache" / RECIPE
NETWORKS = {
    "fp32": ("encoder_sherpa_fp32", "predictor_ncnn_fp32", "joint_ncnn_fp32"),
    "int8": ("encoder_sherpa_int8", "predictor_ncnn_fp16", "joint_ncnn_fp16"),
}
"""`doit lstm-transducer` hears the others, and more: the joint's int8 form waits for a minute of calibration."""
UTTERANCES = 66

Metrics = dict[str, float | int | str]


@pytest.fixture(scope="module")
def heard(evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Metrics]:
    """What each form errs, and in how many recordings sherpa-ncnn hears the same tokens."""
    run_doit("-n", "2", *dict.fromkeys(f"{RECIPE}:{name}" for names in NETWORKS.values() for name in names))
    params = measure_ncnn_wer.Params(slices=("clean",), compare_with_sherpa=True)
    metrics = {}
    for form, (encoder, predictor, joint) in NETWORKS.items():
        metrics[form] = measure_ncnn_wer.run(
            tmp_path_factory.mktemp(form),
            params,
            encoder=CACHE / encoder,
            predictor=CACHE / predictor,
            joint=CACHE / joint,
            tokens=ROOT / "recipes" / RECIPE / "checkpoint" / "tokens.txt",
            corpus=evaluation,
        )
    return metrics


@pytest.mark.parametrize("form", NETWORKS)
def test_sherpa_ncnn_hears_every_recording_as_our_own_loop_does(heard: dict[str, Metrics], form: str) -> None:
    assert heard[form]["sherpa_equal_utterances"] == heard[form]["utterances"] == UTTERANCES


def test_clean_speech_is_understood_and_in_int8_within_a_point(heard: dict[str, Metrics]) -> None:
    fp32, int8 = (float(heard[form]["wer_percent"]) for form in NETWORKS)
    assert fp32 < 5
    assert int8 <= fp32 + 1
