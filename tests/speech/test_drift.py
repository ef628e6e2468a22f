from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.speech.corpus import read_corpus
from artifacts.speech.decoding import DecodingSettings, read_decoding
from artifacts.speech.drift import NONFINITE_ABS, DriftTable, LockstepTransducer
from artifacts.speech.frontend import OnnxEncoder, Preprocessor
from artifacts.speech.greedy import decode
from artifacts.speech.transducer import FusedTransducer


def row(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_the_figures_of_two_utterances() -> None:
    table = DriftTable()
    for slice_name, ours, theirs in (("a", row(1, 2), row(1, 2)), ("b", row(0, 1), row(1, 0))):
        table.begin(slice_name)
        table.add("x", ours, theirs)
        table.end()
    assert table.total["x"].record() == {
        "max_abs": 1.0, "mean_abs": 0.5, "cosine_min": 0.0, "values": 4, "nonfinite_values": 0
    }  # fmt: skip
    assert table.slices["a"]["x"].record()["cosine_min"] == 1.0
    assert table.slices["b"]["x"].record()["max_abs"] == 1.0


def test_a_bad_utterance_does_not_hide_behind_many_good_ones() -> None:
    table = DriftTable()
    for index in range(100):
        table.begin("a")
        table.add("x", row(3, 4) if index else row(4, -3), row(3, 4))
        table.end()
    assert table.total["x"].cosine_min == 0.0


def test_the_parts_of_one_utterance_make_one_cosine() -> None:
    table = DriftTable()
    table.begin("a")
    table.add("x", row(1, 0), row(1, 0))
    table.add("x", row(0, 0), row(0, 1))
    table.end()
    assert table.total["x"].cosine_min == pytest.approx(1 / np.sqrt(2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_model_that_gives_no_finite_value_has_no_good_figure(value: float) -> None:
    table = DriftTable()
    for _ in range(2):
        table.begin("a")
        table.add("x", row(value, value), row(1, 2))
        table.end()
    assert table.slices["a"]["x"].record() == table.total["x"].record()
    assert table.total["x"].record() == {
        "max_abs": 3.40282e38, "mean_abs": 3.40282e38, "cosine_min": 0.0, "values": 4, "nonfinite_values": 4
    }  # fmt: skip


def test_one_value_that_is_not_finite_spoils_its_utterance_and_its_slice_alone() -> None:
    table = DriftTable()
    for slice_name, ours in (("a", row(1, np.nan, 2)), ("b", row(1, 2, 2))):
        table.begin(slice_name)
        table.add("x", ours, row(1, 2, 2))
        table.add("x", row(3), row(3))
        table.end()
    broken, sound = (table.slices[name]["x"] for name in ("a", "b"))
    assert (broken.nonfinite_values, broken.max_abs, broken.cosine_min) == (1, NONFINITE_ABS, 0.0)
    assert broken.record()["mean_abs"] == float(f"{NONFINITE_ABS / 4:.6g}")
    assert (sound.nonfinite_values, sound.max_abs, sound.cosine_min) == (0, 0.0, 1.0)
    assert (table.total["x"].values, table.total["x"].cosine_min) == (8, 0.0)


def test_after_an_utterance_that_is_not_finite_a_worse_one_still_counts() -> None:
    table = DriftTable()
    for ours in (row(np.nan, 1), row(-1, -1)):
        table.begin("a")
        table.add("x", ours, row(1, 1))
        table.end()
    assert table.total["x"].cosine_min == pytest.approx(-1)


def test_an_output_that_died_has_no_cosine_left() -> None:
    table = DriftTable()
    table.begin("a")
    table.add("x", row(0, 0), row(1, 1))
    table.end()
    assert table.total["x"].cosine_min == 0.0


def test_a_reference_that_is_not_finite_is_refused() -> None:
    table = DriftTable()
    table.begin("a")
    with pytest.raises(StepError, match="output 'x' of the reference is not finite"):
        table.add("x", row(1), row(np.nan))


def _frames(evaluation: Path, preprocessor: Path, encoder: Path) -> np.ndarray:
    corpus = read_corpus(evaluation)
    preprocess = Preprocessor(preprocessor / "preprocessor.onnx", threads=1)
    encode = OnnxEncoder(encoder / "encoder-model.onnx", threads=1)
    return encode.frames(*preprocess.features(corpus.waveform(corpus.utterances[0])))


def test_the_path_is_the_references_and_the_drift_is_the_models(
    evaluation: Path,
    preprocessor: Path,
    encoder_fp32: Path,
    decoder_joint_fp32: Path,
    decoder_joint_int8_dynamic: Path,
    model_meta: Path,
) -> None:
    frames = _frames(evaluation, preprocessor, encoder_fp32)
    decoding = read_decoding(model_meta / "model_meta.json")
    fp32 = decoder_joint_fp32 / "decoder_joint-model.onnx"
    int8 = decoder_joint_int8_dynamic / "decoder_joint-model.onnx"
    alone = decode(FusedTransducer(fp32, 1, decoding.blank_id), frames, decoding)
    assert len(alone) > 10
    drift = {}
    for name, model in {"fp32": fp32, "int8": int8}.items():
        table = DriftTable()
        table.begin("clean")
        both = LockstepTransducer(model, fp32, 1, decoding, table)
        assert decode(both, frames, decoding) == alone
        assert both.steps >= len(alone)
        table.end()
        drift[name] = table.total["outputs"].max_abs
        if name == "fp32":
            assert both.steps_with_other_choice == 0
    assert drift["fp32"] == 0
    assert drift["int8"] > 0.001


def test_of_a_joint_without_durations_the_tokens_are_compared(decoder_joint_fp32: Path) -> None:
    model = decoder_joint_fp32 / "decoder_joint-model.onnx"
    both = LockstepTransducer(model, model, 1, DecodingSettings(128, ()), DriftTable())
    assert both._choice(np.arange(129, dtype=np.float32)) == (128, 0)
