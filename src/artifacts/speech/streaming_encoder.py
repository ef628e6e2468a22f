"""Encode features chunk by chunk, with an exported streaming encoder and its caches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from artifacts.model.chunk_schedule import ChunkSchedule, read_chunk_schedule
from artifacts.runtime.sessions import Output, open_session, require_values, run_session, zeros_of

CACHES = ("cache_last_channel", "cache_last_time", "cache_last_channel_len")
INPUTS = ("audio_signal", "length", *CACHES)
MADE = {
    "encoder_output": Output("f", 3),
    "encoded_lengths": Output("i", 1),
    "cache_last_channel_out": Output("f", 4),
    "cache_last_time_out": Output("f", 4),
    "cache_last_channel_len_out": Output("i", 1),
}
OUTPUTS = tuple(MADE)


class StreamingEncoder:
    """A graph of `export_streaming_encoder`, in either layout of its caches, for one stream at a time."""

    def __init__(self, model: Path, threads: int, schedule: ChunkSchedule | None = None) -> None:
        """Open the graph; its metadata have the chunk schedule unless `schedule` gives another one.

        Raises StepError if the graph is not a streaming encoder, or has no chunk schedule.
        """
        self._name = model.name
        self._session = open_session(model, threads)
        require_values(self._session, model, INPUTS, OUTPUTS)
        self.schedule = schedule or read_chunk_schedule(self._session.get_modelmeta().custom_metadata_map, model.name)
        inputs = {value.name: value for value in self._session.get_inputs()}
        self._zeros: dict[str, npt.NDArray[Any]] = {
            name: zeros_of(inputs[name], inputs[name].shape, model.name).astype(
                np.int64 if name == "cache_last_channel_len" else np.float32
            )
            for name in CACHES
        }

    def chunks(
        self, features: npt.NDArray[np.float32], lengths: npt.NDArray[np.int64]
    ) -> Iterator[npt.NDArray[np.float32]]:
        """Encode a stream of features `[1, F, T]`, of which `lengths` `[1]` are valid; yield `[T', D]` for each chunk.

        No chunk depends on features after its end.
        """
        caches = self._zeros
        for start, end, last in self.schedule.windows(int(lengths[0])):
            window = np.pad(features[:, :, max(start, 0) : end], ((0, 0), (0, 0), (max(-start, 0), 0)))
            feeds: dict[str, npt.NDArray[Any]] = {
                "audio_signal": window,
                "length": np.array([end - start], np.int64),
                **caches,
            }
            output, output_lengths, *states = run_session(
                self._session,
                self._name,
                MADE,
                feeds,
                failing=f"fails on the window {start} to {end} of a stream",
                fix="export the encoder again",
            )
            caches = dict(zip(CACHES, states, strict=True))
            count = int(output_lengths[0]) if last else min(int(output_lengths[0]), self.schedule.output_frames)
            yield np.ascontiguousarray(output[0, :, :count].T)
