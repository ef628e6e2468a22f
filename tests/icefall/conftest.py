from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CHECKPOINT = Path(__file__).parents[2] / "embedded" / "lstm-transducer" / "checkpoint"


@pytest.fixture(scope="session")
def lstm_checkpoint() -> Path:
    """The folder of the embedded LSTM transducer."""
    return CHECKPOINT


@pytest.fixture(scope="session")
def model(lstm_checkpoint: Path) -> Any:
    """The embedded LSTM transducer as the kit loads it. Tests leave it as it is."""
    from artifacts.icefall.checkpoint import load

    return load(lstm_checkpoint)


@pytest.fixture(scope="session")
def speech(evaluation: Path) -> npt.NDArray[np.float32]:
    """Kaldi features of real speech, float32 `[T, 80]`: the first clean utterance."""
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.sherpa_streaming import features

    corpus = read_corpus(evaluation, ("clean",))
    return features(corpus.waveform(corpus.utterances[0]))
