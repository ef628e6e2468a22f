from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PARAKEET = {"features": 128, "n_fft": 512, "window_size": 0.025, "window_stride": 0.01, "pad_to": 0}


@pytest.fixture(scope="session")
def restored_model(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The embedded checkpoint as the kit restores it. Tests leave it as it is."""
    from artifacts.nemo.checkpoint import restore

    return restore(tiny_checkpoint, tmp_path_factory.mktemp("unpacked"))


@pytest.fixture
def quietly() -> Iterator[None]:
    """NeMo's own talk is kept out of the test, warnings included."""
    from artifacts.nemo.quiet import quiet

    with quiet():
        yield


@pytest.fixture
def nemo_preprocessor(quietly: None) -> Callable[..., Any]:
    """Makes NeMo's own preprocessor with Parakeet's settings and these in their place."""
    from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor

    return lambda **changed: AudioToMelSpectrogramPreprocessor(**{**PARAKEET, **changed}).eval()
