from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artifacts.ncnn.tapped_transducer import TappedEncoder, TappedTransducer
from artifacts.ncnn.transducer import Encoder, Transducer
from artifacts.speech.decoding import read_decoding
from artifacts.speech.greedy import decode
from ncnn_conversions import Array


@pytest.fixture(scope="module")
def frames(tdt: dict[str, Path], one_utterance: Array) -> Array:
    """Encoder frames [T', D] of real speech."""
    return Encoder(tdt["encoder"], threads=1).frames(one_utterance[np.newaxis], np.array([one_utterance.shape[1]]))


def test_the_encoder_gives_the_same_frames_and_measures_its_convolutions(
    tdt: dict[str, Path], one_utterance: Array, frames: Array
) -> None:
    encoder = TappedEncoder(tdt["encoder"])
    assert [layer.type for layer in encoder.tapped.layers].count("Convolution") == 3
    for _ in range(2):
        got = encoder.frames(one_utterance[np.newaxis], np.array([one_utterance.shape[1]]))
        assert np.array_equal(got, frames)
        encoder.tapped.begin_second_pass()
    assert len(encoder.tapped.table("kl").activations) == 5


def test_decoding_says_the_same_and_measures_the_joint(tdt: dict[str, Path], frames: Array, model_meta: Path) -> None:
    decoding = read_decoding(model_meta / "model_meta.json")
    want = decode(Transducer(tdt["predictor"], tdt["joint"], 1, decoding.blank_id), frames, decoding)
    transducer = TappedTransducer(tdt["predictor"], tdt["joint"], decoding.blank_id)
    for _ in range(2):
        assert decode(transducer, frames, decoding) == want
        transducer.tapped.begin_second_pass()
    assert len(want) > 10
    table = transducer.tapped.table("absmax")
    first = transducer.tapped.layers[0]
    assert len(table.activations) == 3
    # The first linear layer reads the frames that were scored: no number is larger than the largest of all.
    assert table.activations[first.name] >= 127 / float(np.abs(frames).max()) * 0.999
