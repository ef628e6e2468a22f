"""Compute encoder frames from a waveform: the exported preprocessor, then the encoder, one utterance at a time.

Consumers run one utterance at a time too. A batch would change numbers: a dynamically quantised encoder scales its
activations by the largest value of the whole tensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.runtime.sessions import Output, open_session, require_values, run_session

FEATURES = {"features": Output("f", 3), "features_lens": Output("i", 1)}
ENCODED = {"encoder_output": Output("f", 3), "encoded_lengths": Output("i", 1)}


class Preprocessor:
    """`waveforms [B, N]` f32, `waveforms_lens [B]` i64 → `features [B, F, T]` f32, `features_lens [B]` i64."""

    def __init__(self, model: Path, threads: int) -> None:
        self._name = model.name
        self._session = open_session(model, threads)
        require_values(self._session, model, ("waveforms", "waveforms_lens"), ("features", "features_lens"))

    def features(self, waveform: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Compute features `[1, F, T]` and their length `[1]` of a float32 `[N]`; T may exceed that length."""
        feeds: dict[str, npt.NDArray[Any]] = {
            "waveforms": waveform[np.newaxis],
            "waveforms_lens": np.array([len(waveform)], dtype=np.int64),
        }
        features, lengths = run_session(self._session, self._name, FEATURES, feeds)
        if not 0 <= int(lengths[0]) <= features.shape[2]:
            raise StepError(
                f"{self._name}: gives {features.shape[2]} features and says {int(lengths[0])}",
                "give the preprocessor of the checkpoint",
            )
        return features, lengths


class OnnxEncoder:
    """`audio_signal [B, F, T]` f32, `length [B]` i64 → `encoder_output [B, D, T']` f32, `encoded_lengths [B]` i64."""

    def __init__(self, model: Path, threads: int) -> None:
        self._name = model.name
        self._session = open_session(model, threads)
        require_values(self._session, model, ("audio_signal", "length"), ("encoder_output", "encoded_lengths"))

    def encode(
        self, features: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Encode features `[1, F, T]` into `[1, D, T']` and their length `[1]`.

        Raises StepError if the encoder fails, for example beyond its table of positions, usually 400 seconds.
        """
        feeds: dict[str, npt.NDArray[Any]] = {"audio_signal": features, "length": lengths}
        outputs, encoded_lengths = run_session(
            self._session,
            self._name,
            ENCODED,
            feeds,
            failing=f"fails on {int(lengths[0])} features",
            fix="leave out recordings that are longer than the model's table of positions (usually 400 s)",
        )
        return outputs, encoded_lengths

    def frames(self, features: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Encode features `[1, F, T]` into frames `[T', D]`, as many as the encoder's length says.

        Raises StepError if there are fewer frames, which has happened where lengths were computed in fp16.
        """
        outputs, encoded_lengths = self.encode(features, lengths)
        length = int(encoded_lengths[0])
        if not 0 <= length <= outputs.shape[2]:
            raise StepError(
                f"{self._name}: gives {outputs.shape[2]} frames and says {length} for {int(lengths[0])} features",
                "keep the arithmetic of lengths in fp32",
            )
        return np.ascontiguousarray(outputs[0, :, :length].T)
