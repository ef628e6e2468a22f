"""How a cache-aware encoder is fed: which checkpoints can be, in what windows, with how long a past.

Words and numbers are NeMo's (`CacheAwareStreamingConfig`). A stream is cut into chunks of features. Each window that
the encoder is given is a chunk behind the last features of the chunk before; the first window is a chunk alone, and a
little shorter, since the convolutions of the subsampling see nothing before it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from artifacts.errors import StepError
from artifacts.nemo.quiet import quiet

if TYPE_CHECKING:
    from artifacts.nemo.transducer import Transducer


@dataclass(frozen=True)
class Schedule:
    """Counted in features, but for the last four, which count encoder frames.

    Window n > 0 starts `pre_encode_frames` before its chunk. A window whose chunk has fewer features than
    `least_frames` (`first_least_frames` for the first) is the end of a stream, and is not encoded.
    """

    first_chunk_frames: int
    first_shift_frames: int
    chunk_frames: int
    shift_frames: int
    pre_encode_frames: int
    first_least_frames: int
    least_frames: int
    subsampling_factor: int
    output_frames: int
    """What is kept of a window that is not the last: the rest of it was seen with too little of its future."""
    cache_size: int
    cache_drop_size: int
    left_context: int
    right_context: int

    @property
    def metadata(self) -> dict[str, str]:
        """As a model's metadata have it: keys and values are text."""
        return {key: str(value) for key, value in dataclasses.asdict(self).items()}


@dataclass(frozen=True)
class Wishes:
    """What a recipe asks for instead of the checkpoint's own; None is the checkpoint's."""

    left_context: int | None = None
    right_context: int | None = None
    chunk_frames: int | None = None
    shift_frames: int | None = None
    cache_size: int | None = None
    cache_drop_size: int | None = None
    experimental: bool = False


def schedule(model: Transducer, wishes: Wishes, name: str) -> Schedule:
    """Set the model's encoder up to stream as wished, and say how.

    Raises StepError, for the checkpoint `name`, if it was not trained to stream, or not so; with `experimental` only
    for what cannot be computed at all.
    """
    encoder = model.encoder
    context = _context(model, wishes, name)
    if not wishes.experimental:
        _refuse_offline(model, name)
    factor = encoder.subsampling_factor
    group = context[1] + 1
    chunk = _encoder_frames("chunk_frames", wishes.chunk_frames, group, factor)
    shift = _encoder_frames("shift_frames", wishes.shift_frames, chunk, factor)
    drop = chunk - shift if wishes.cache_drop_size is None else wishes.cache_drop_size
    cache = context[0] if wishes.cache_size is None else wishes.cache_size
    if shift > chunk or drop >= chunk:
        raise StepError(
            f"{name}: chunk_frames {chunk * factor}, shift_frames {shift * factor}, cache_drop_size {drop}: more is"
            " passed over or dropped than a chunk has",
            "shift by a chunk at most, and drop fewer encoder frames than it has",
        )
    if not wishes.experimental:
        _refuse_inexact(group, chunk, shift, drop, cache, context[0], name, factor)
    with quiet():
        encoder.set_default_att_context_size(context)
        encoder.setup_streaming_params(chunk_size=chunk, shift_size=shift, left_chunks=1)
    settings = encoder.streaming_cfg
    settings.last_channel_cache_size, settings.cache_drop_size = cache, drop
    for part in encoder.layers.modules():
        if hasattr(part, "cache_drop_size"):
            part.cache_drop_size = drop
    least = encoder.pre_encode.get_sampling_frames()
    return Schedule(
        first_chunk_frames=settings.chunk_size[0],
        first_shift_frames=settings.shift_size[0],
        chunk_frames=settings.chunk_size[1],
        shift_frames=settings.shift_size[1],
        pre_encode_frames=settings.pre_encode_cache_size[1],
        first_least_frames=least[0],
        least_frames=least[1],
        subsampling_factor=factor,
        output_frames=settings.valid_out_len,
        cache_size=cache,
        cache_drop_size=drop,
        left_context=context[0],
        right_context=context[1],
    )


def _context(model: Transducer, wishes: Wishes, name: str) -> list[int]:
    """[left, right] in encoder frames: what the checkpoint names first, or what is wished and it was trained with."""
    trained = [list(context) for context in model.encoder.att_context_size_all]
    first = trained[0]
    if wishes.right_context is not None and wishes.left_context is None:
        first = next((context for context in trained if context[1] == wishes.right_context), first)
    wished = (wishes.left_context, wishes.right_context)
    context = [ours if wish is None else wish for wish, ours in zip(wished, first, strict=True)]
    if min(context) < 0:
        raise StepError(
            f"{name}: attention looks over the whole recording (att_context_size {first}): an offline model",
            "give a checkpoint that was trained to stream; or experimental: true, left_context and right_context",
        )
    if context not in trained and not wishes.experimental:
        raise StepError(
            f"{name}: left and right context {context}: it was trained with {', '.join(map(str, trained))}",
            "choose one of these, or say experimental: true",
        )
    return context


def _refuse_offline(model: Transducer, name: str) -> None:
    encoder = model.encoder
    reasons = {
        f"its convolutions look ahead (conv_context_size {encoder.conv_context_size})": encoder.conv_context_size[1],
        "its subsampling looks ahead (causal_downsampling false)": not model.cfg.encoder.causal_downsampling,
        f"its attention is not in chunks (att_context_style '{encoder.att_context_style}')": (
            encoder.att_context_style != "chunked_limited"
        ),
        "its features are normalised over the whole recording (normalize 'per_feature')": (
            model.cfg.preprocessor.normalize in ("per_feature", "all_features")
        ),
    }
    if found := [reason for reason, holds in reasons.items() if holds]:
        raise StepError(
            f"{name}: an offline model: {'; '.join(found)}; in chunks it computes what it was not trained for",
            "give a checkpoint that was trained to stream, measure this one with buffered streaming,"
            " or say experimental: true",
        )


def _refuse_inexact(
    group: int, chunk: int, shift: int, drop: int, cache: int, left: int, name: str, factor: int
) -> None:
    """Chunks that do not fall together with those of the training see less, or more, than these did."""
    if chunk % group or shift != chunk or drop or cache < left or cache % group:
        raise StepError(
            f"{name}: chunk_frames {chunk * factor}, shift_frames {shift * factor}, cache_size {cache},"
            f" cache_drop_size {drop}: not what it was trained with",
            f"take chunks of a multiple of {group * factor}, shift by as much, keep at least {left} encoder frames and"
            f" a multiple of {group}, drop none; or say experimental: true",
        )


def _encoder_frames(param: str, wished: int | None, default: int, factor: int) -> int:
    if wished is None:
        return default
    if wished % factor:
        raise StepError(
            f"{param}: {wished} features make no whole number of encoder frames", f"give a multiple of {factor}"
        )
    return wished // factor
