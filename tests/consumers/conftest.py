from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from artifacts.asr.corpus import Corpus, read_corpus
from artifacts.nemo.quiet import quiet

ORDERS = 4
"""In which the clips are joined, for each length."""


@pytest.fixture(scope="session")
def speech(evaluation: Path) -> Corpus:
    """The evaluation speech of the embedded checkpoint: all short recordings, and of the long ones the first order that
    their clips are joined in. What the artifacts themselves lose is measured on all of it, elsewhere."""
    corpus = read_corpus(evaluation)
    long = [utterance for utterance in corpus.utterances if utterance.slice.startswith("long_")]
    counts = Counter(utterance.slice for utterance in long)
    seen: Counter[str] = Counter()
    left_out = set()
    for utterance in long:
        seen[utterance.slice] += 1
        if seen[utterance.slice] > counts[utterance.slice] // ORDERS:
            left_out.add(utterance.id)
    return Corpus(corpus.folder, tuple(each for each in corpus.utterances if each.id not in left_out))


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
