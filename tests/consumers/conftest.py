from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.asr.corpus import Corpus, read_corpus
from artifacts.nemo.quiet import quiet


@pytest.fixture(scope="session")
def speech(evaluation: Path) -> Corpus:
    """The evaluation speech of the embedded checkpoint, all of it."""
    return read_corpus(evaluation)


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
