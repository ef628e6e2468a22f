"""Stream with a cache-aware encoder: its schedule, and the encoder as a network that takes one chunk and its caches.

Words and numbers are NeMo's (`CacheAwareStreamingConfig`). A stream is cut into chunks of features. The encoder takes
windows: a chunk after the last features of the chunk before. The first window is a chunk alone, and a little shorter,
because the convolutions of the subsampling have nothing before it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from artifacts.errors import StepError
from artifacts.model.chunk_schedule import ChunkSchedule
from artifacts.model.network import Network, Sizes
from artifacts.nemo.networks import shrinking_lengths
from artifacts.nemo.quiet import quiet

if TYPE_CHECKING:
    from artifacts.nemo.transducer import Transducer

Layout = Literal["layer_first", "batch_first"]


@dataclass(frozen=True)
class StreamingSchedule(ChunkSchedule):
    """The windows of a stream, and in encoder frames the caches and contexts of the encoder."""

    cache_size: int
    cache_drop_size: int
    left_context: int
    right_context: int

    @property
    def metadata(self) -> dict[str, str]:
        """Entries of a model's metadata: keys and values are text."""
        return {key: str(value) for key, value in dataclasses.asdict(self).items()}


@dataclass(frozen=True)
class StreamingOverrides:
    """Sizes that a recipe gives instead of the checkpoint's own; None is the checkpoint's."""

    left_context: int | None = None
    right_context: int | None = None
    chunk_frames: int | None = None
    shift_frames: int | None = None
    cache_size: int | None = None
    cache_drop_size: int | None = None
    experimental: bool = False


def set_up_streaming(model: Transducer, overrides: StreamingOverrides, name: str) -> StreamingSchedule:
    """Set the streaming parameters of the model's encoder. Returns its schedule.

    Raises StepError, for the checkpoint `name`, if it was not trained to stream, or not with these sizes. With
    `experimental`, it does so only for sizes that cannot be computed with at all.
    """
    encoder = model.encoder
    context = _context(model, overrides, name)
    if not overrides.experimental:
        _refuse_offline(model, name)
    factor = encoder.subsampling_factor
    group = context[1] + 1
    chunk = _encoder_frames("chunk_frames", overrides.chunk_frames, group, factor)
    shift = _encoder_frames("shift_frames", overrides.shift_frames, chunk, factor)
    drop = chunk - shift if overrides.cache_drop_size is None else overrides.cache_drop_size
    cache = context[0] if overrides.cache_size is None else overrides.cache_size
    if shift > chunk or drop >= chunk:
        raise StepError(
            f"{name}: chunk_frames {chunk * factor}, shift_frames {shift * factor}, cache_drop_size {drop}: the shift"
            " or the drop exceeds the chunk",
            "shift by a chunk at most, and drop fewer encoder frames than it has",
        )
    if not overrides.experimental:
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
    return StreamingSchedule(
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


def _context(model: Transducer, overrides: StreamingOverrides, name: str) -> list[int]:
    """Return [left, right] in encoder frames: overrides that it was trained with, else the checkpoint's first pair."""
    trained = [list(context) for context in model.encoder.att_context_size_all]
    first = trained[0]
    if overrides.right_context is not None and overrides.left_context is None:
        first = next((context for context in trained if context[1] == overrides.right_context), first)
    given = (overrides.left_context, overrides.right_context)
    context = [own if value is None else value for value, own in zip(given, first, strict=True)]
    if min(context) < 0:
        raise StepError(
            f"{name}: attention spans the whole recording (att_context_size {first}): an offline model",
            "give a checkpoint that was trained to stream; or experimental: true, left_context and right_context",
        )
    if context not in trained and not overrides.experimental:
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
    if found := [reason for reason, is_so in reasons.items() if is_so]:
        raise StepError(
            f"{name}: an offline model: {'; '.join(found)}; it was not trained to encode chunks",
            "give a checkpoint that was trained to stream, measure this one with buffered streaming,"
            " or say experimental: true",
        )


def _refuse_inexact(
    group: int, chunk: int, shift: int, drop: int, cache: int, left: int, name: str, factor: int
) -> None:
    """Refuse chunks that are not aligned with those of the training: their frames have less, or more, context."""
    if chunk % group or shift != chunk or drop or cache < left or cache % group:
        raise StepError(
            f"{name}: chunk_frames {chunk * factor}, shift_frames {shift * factor}, cache_size {cache},"
            f" cache_drop_size {drop}: not what it was trained with",
            f"take chunks of a multiple of {group * factor}, shift by as much, keep at least {left} encoder frames and"
            f" a multiple of {group}, drop none; or say experimental: true",
        )


def _encoder_frames(param: str, features: int | None, default: int, factor: int) -> int:
    if features is None:
        return default
    if features % factor:
        raise StepError(f"{param}: must be a multiple of {factor}, got {features}", f"give a multiple of {factor}")
    return features // factor


class StreamingEncoderNetwork(Network):
    """A window of features and the caches of L layers → the encoder frames of its chunk, and the next caches.

    In: `audio_signal` [batch, features, frames], `length` [batch] int64 (its valid frames), `cache_last_channel`
    [L, batch, C, D] (the past, for attention), `cache_last_time` [L, batch, D, K] (the past, for convolutions),
    `cache_last_channel_len` [batch] int64 (how many of the C frames are filled, from the end). A stream begins with
    zeros in all three. Out: `encoder_output` [batch, D, encoder_frames], `encoded_lengths` [batch] int64, and the
    caches with `_out` behind their names. With the layout `batch_first` their first two axes are exchanged.

    A later window has features of the chunk before, so that the subsampling has its past; the encoder frames that they
    give are dropped. The first window has none, and nothing is dropped. NeMo has two settings for this. A graph with
    one of them is wrong on the first chunk, by more than rounding: zeros as features are not the zeros with which a
    convolution pads its input. Here empty caches mark the first window, so that one graph serves both.

    The rows of a batch must begin their streams together. If one is past its first chunk, all are treated so.
    The encoder must be set up before, by `set_up_streaming`.
    """

    def __init__(self, model: Transducer, layout: Layout) -> None:
        encoder = model.encoder
        channel, time, _ = encoder.get_initial_cache_state(batch_size=1)
        channel_dims, time_dims = (self._dims(cache, layout) for cache in (channel, time))
        super().__init__(
            {
                "audio_signal": ("batch", model.cfg.preprocessor.features, "frames"),
                "length": ("batch",),
                "cache_last_channel": channel_dims,
                "cache_last_time": time_dims,
                "cache_last_channel_len": ("batch",),
            },
            {
                "encoder_output": ("batch", encoder.d_model, "encoder_frames"),
                "encoded_lengths": ("batch",),
                "cache_last_channel_out": channel_dims,
                "cache_last_time_out": time_dims,
                "cache_last_channel_len_out": ("batch",),
            },
        )
        self.encoder = encoder
        self.layout = layout
        self.features: int = model.cfg.preprocessor.features
        self.cache_frames = channel.shape[2]
        self.extra_frames = encoder.streaming_cfg.drop_extra_pre_encoded

    @staticmethod
    def _dims(cache: Tensor, layout: Layout) -> tuple[str | int, ...]:
        layers, _, *rest = cache.shape
        return (layers, "batch", *rest) if layout == "layer_first" else ("batch", layers, *rest)

    def forward(
        self,
        audio_signal: Tensor,
        length: Tensor,
        cache_last_channel: Tensor,
        cache_last_time: Tensor,
        cache_last_channel_len: Tensor,
    ) -> tuple[Tensor, ...]:
        extra = self.extra_frames * (cache_last_channel_len.max() > 0).to(torch.int64)
        encoded, encoded_length = self.encoder.pre_encode(x=audio_signal.transpose(1, 2), lengths=length)
        encoded_length = (encoded_length.to(torch.int64) - extra).clamp(min=0)
        encoded = encoded.index_select(1, torch.arange(encoded.shape[1], device=encoded.device)[extra:])
        results = self.encoder.forward_internal(
            encoded,
            encoded_length,
            cache_last_channel=self._with_nemos_axes(cache_last_channel),
            cache_last_time=self._with_nemos_axes(cache_last_time),
            cache_last_channel_len=cache_last_channel_len,
            bypass_pre_encode=True,
        )
        encoder_output, encoded_lengths, channel, time, channel_len = results
        channel = channel[:, :, -self.cache_frames :]
        channel, time = self._with_nemos_axes(channel), self._with_nemos_axes(time)
        return encoder_output, encoded_lengths, channel, time, channel_len

    def _with_nemos_axes(self, cache: Tensor) -> Tensor:
        """Exchange the first two axes unless the layout is NeMo's, which has the layers first; and back."""
        return cache if self.layout == "layer_first" else cache.transpose(0, 1)

    def first_caches(self, batch: int) -> dict[str, Tensor]:
        """Return the caches of the beginning of a stream: zeros."""
        dims = {name: self.inputs[name] for name in ("cache_last_channel", "cache_last_time")}
        caches = {
            name: torch.zeros([batch if isinstance(dim, str) else dim for dim in shape]) for name, shape in dims.items()
        }
        return {**caches, "cache_last_channel_len": torch.zeros(batch, dtype=torch.int64)}

    def sample(self, sizes: Sizes, seed: int) -> tuple[Tensor, ...]:
        """Return rows of different length in the middle of a stream, caches filled; `cached` in `sizes` fills fewer.

        With 0 it is the beginning of a stream, whose caches are zero.
        """
        generator = torch.Generator().manual_seed(seed)
        batch, frames, cached = sizes["batch"], sizes["frames"], sizes.get("cached", self.cache_frames)
        audio_signal = torch.randn(batch, self.features, frames, generator=generator)
        caches = self.first_caches(batch)
        if cached:
            for name in ("cache_last_channel", "cache_last_time"):
                caches[name] = torch.randn(caches[name].shape, generator=generator)
            caches["cache_last_channel_len"] = (cached - torch.arange(batch)).clamp(min=1)
        return (audio_signal, shrinking_lengths(batch, frames), *caches.values())
