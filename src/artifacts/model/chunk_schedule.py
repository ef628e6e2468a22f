"""How a stream of features is cut into windows for a streaming encoder, as the graph's metadata say.

Counted in features: `first_chunk_frames`, `first_shift_frames`, `chunk_frames`, `shift_frames`, `pre_encode_frames`
(what a later window brings of the chunk before it) and `least_frames` (a shorter rest is not encoded). `output_frames`
are the encoder frames that are kept of a window that is not the last. It is the schedule of NeMo's
`CacheAwareStreamingAudioBuffer`, and `export_streaming_encoder` writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from artifacts.errors import StepError

_NUMBER = re.compile(r"[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True)
class Cut:
    """How a stream of features is cut into windows, from a graph's metadata."""

    first_chunk_frames: int
    first_shift_frames: int
    chunk_frames: int
    shift_frames: int
    pre_encode_frames: int
    first_least_frames: int
    least_frames: int
    output_frames: int

    def windows(self, frames: int) -> Iterator[tuple[int, int, bool]]:
        """Start and end of each window in a stream of so many features, and whether it is the last.

        The start is below 0 where there are fewer features before a chunk than its window brings: zeros stand for them.
        """
        first = (self.first_chunk_frames, self.first_shift_frames, self.first_least_frames, 0)
        later = (self.chunk_frames, self.shift_frames, self.least_frames, self.pre_encode_frames)
        start, (chunk, shift, least, before) = 0, first
        while frames - start >= least:
            yield start - before, min(start + chunk, frames), frames - start - shift < self.least_frames
            start += shift
            chunk, shift, least, before = later


def read_cut(metadata: Mapping[str, str], name: str) -> Cut:
    """From the metadata of the model `name`. Raises StepError if a key is missing or no number, or a stream endless."""
    fix = "give the artifact of export_streaming_encoder, or what was made from it"
    values = {}
    for field in fields(Cut):
        text = metadata.get(field.name, "")
        if not _NUMBER.fullmatch(text):
            raise StepError(f"{name}: metadata: {field.name}: expected a number, got {text[:60]!r}", fix)
        values[field.name] = int(text)
    cut = Cut(**values)
    if min(cut.first_shift_frames, cut.shift_frames, cut.first_least_frames, cut.least_frames) < 1:
        raise StepError(f"{name}: metadata: a stream is shifted by no features, and would never end", fix)
    return cut
