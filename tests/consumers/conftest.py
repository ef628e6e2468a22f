from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.nemo.quiet import quiet
from artifacts.speech.corpus import Corpus, Utterance, read_corpus

ORDERS = 4
"""In which the clips are joined, for each length."""


@pytest.fixture(scope="session")
def speech(evaluation: Path) -> Corpus:
    """Of each slice of the embedded checkpoint's evaluation a part: half of the short recordings, and of the long ones
    the first order that their clips are joined in. What the artifacts themselves lose is measured on all, elsewhere."""
    corpus = read_corpus(evaluation)
    slices: dict[str, list[Utterance]] = {}
    for utterance in corpus.utterances:
        slices.setdefault(utterance.slice, []).append(utterance)
    parts = (each[: len(each) // (ORDERS if name.startswith("long_") else 2)] for name, each in slices.items())
    return Corpus(corpus.folder, tuple(utterance for part in parts for utterance in part))


@pytest.fixture(scope="session")
def nemo_transcripts(tiny_checkpoint: Path, speech: Corpus) -> dict[str, str]:
    """What NeMo itself makes of each utterance: id → text."""
    with quiet():
        import torch
        from nemo.collections.asr.models import EncDecRNNTBPEModel

        # Two threads are no faster for a model of this size, and on busy cores many times slower.
        torch.set_num_threads(1)
        model = EncDecRNNTBPEModel.restore_from(str(tiny_checkpoint), map_location="cpu").eval()
        waveforms = [speech.waveform(utterance) for utterance in speech.utterances]
        hypotheses = model.transcribe(waveforms, batch_size=1, verbose=False)
    return {utterance.id: found.text for utterance, found in zip(speech.utterances, hypotheses, strict=True)}
