"""Chunk schedule of a streaming encoder: the windows of features that it encodes, from the graph's metadata.

It is the schedule of NeMo's `CacheAwareStreamingAudioBuffer`; `export_streaming_encoder` writes it. Sizes are in
features: `first_chunk_frames`, `first_shift_frames`, `chunk_frames`, `shift_frames`, `pre_encode_frames` (the part of
the chunk before it that a later window repeats) and `least_frames` (a shorter rest is not encoded). An encoder frame
stands for `subsampling_factor` of them. `output_frames` are the encoder frames that are kept of a window, unless it is
the last: the others were encoded with too little of their future.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from artifacts.errors import StepError

_NUMBER = re.compile(r"[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True)
class ChunkSchedule:
    """Sizes of the windows of a stream, in features."""

    first_chunk_frames: int
    first_shift_frames: int
    chunk_frames: int
    shift_frames: int
    pre_encode_frames: int
    first_least_frames: int
    least_frames: int
    subsampling_factor: int
    output_frames: int

    def windows(self, frames: int) -> Iterator[tuple[int, int, bool]]:
        """Yield the start and end of each window of a stream of `frames` features, and whether it is the last.

        The start is below 0 where a window begins before the stream: pad it with zeros.
        """
        first = (self.first_chunk_frames, self.first_shift_frames, self.first_least_frames, 0)
        later = (self.chunk_frames, self.shift_frames, self.least_frames, self.pre_encode_frames)
        start, (chunk, shift, least, before) = 0, first
        while frames - start >= least:
            yield start - before, min(start + chunk, frames), frames - start - shift < self.least_frames
            start += shift
            chunk, shift, least, before = later


def read_chunk_schedule(metadata: Mapping[str, str], name: str) -> ChunkSchedule:
    """Read the schedule from the metadata of the model `name`.

    Raises StepError if a key is missing or is not a number, and for a schedule that never ends.
    """
    fix = "give the artifact of export_streaming_encoder, or one that was built from it"
    values = {}
    for field in fields(ChunkSchedule):
        text = metadata.get(field.name, "")
        if not _NUMBER.fullmatch(text):
            raise StepError(f"{name}: metadata: {field.name}: expected a number, got {text[:60]!r}", fix)
        values[field.name] = int(text)
    found = ChunkSchedule(**values)
    if min(found.first_shift_frames, found.shift_frames, found.first_least_frames, found.least_frames) < 1:
        raise StepError(f"{name}: metadata: windows are 0 features apart, so a stream would never end", fix)
    return found
