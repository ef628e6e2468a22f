"""Two decoder_joint models on the reference's own path."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from artifacts.speech.corpus import read_corpus
from artifacts.speech.decoding import Decoding, read_decoding
from artifacts.speech.drift import DriftTable
from artifacts.speech.frontend import Encoder, Preprocessor
from artifacts.speech.greedy import decode
from artifacts.speech.side_by_side import SideBySide
from artifacts.speech.transducer import FusedTransducer


def _frames(evaluation: Path, preprocessor: Path, encoder: Path) -> np.ndarray:
    corpus = read_corpus(evaluation)
    preprocess = Preprocessor(preprocessor / "preprocessor.onnx", threads=1)
    encode = Encoder(encoder / "encoder-model.onnx", threads=1)
    return encode.frames(*preprocess.features(corpus.waveform(corpus.utterances[0])))


def test_the_path_is_the_references_and_the_drift_is_the_models(
    evaluation: Path,
    preprocessor: Path,
    encoder_fp32: Path,
    decoder_joint_fp32: Path,
    decoder_joint_int8: Path,
    model_meta: Path,
) -> None:
    frames = _frames(evaluation, preprocessor, encoder_fp32)
    decoding = read_decoding(model_meta / "model_meta.json")
    fp32 = decoder_joint_fp32 / "decoder_joint-model.onnx"
    int8 = decoder_joint_int8 / "decoder_joint-model.onnx"
    alone = decode(FusedTransducer(fp32, 1, decoding.blank_id), frames, decoding)
    assert len(alone) > 10
    drift = {}
    for name, model in {"fp32": fp32, "int8": int8}.items():
        table = DriftTable()
        table.begin("clean")
        both = SideBySide(model, fp32, 1, decoding, table)
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
    both = SideBySide(model, model, 1, Decoding(128, ()), DriftTable())
    assert both._choice(np.arange(129, dtype=np.float32)) == (128, 0)
