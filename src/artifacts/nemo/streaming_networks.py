"""A cache-aware encoder as a module that takes one chunk and its caches, ready to be traced.

The first chunk of a stream is not like the others. Later ones bring some features of the chunk before, so that the
subsampling has its past, and the encoder frames that come of these are dropped; the first brings none, and nothing is
dropped. NeMo keeps two settings for this; a graph with one of them is wrong on the first chunk, by more than rounding:
features that are zero are not the zeros that a convolution puts before its input. Here the caches tell: a stream whose
caches hold nothing yet is at its beginning. So one graph serves both, and a consumer that knows of one only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from artifacts.model.network import Network, Sizes

if TYPE_CHECKING:
    from artifacts.nemo.transducer import Transducer

Layout = Literal["layer_first", "batch_first"]


class StreamingEncoderNetwork(Network):
    """A window of features and the caches of L layers → the encoder frames of its chunk, and the next caches.

    In: `audio_signal` [batch, features, frames], `length` [batch] int64 (its valid frames), `cache_last_channel`
    [L, batch, C, D] (the past, for attention), `cache_last_time` [L, batch, D, K] (the past, for convolutions),
    `cache_last_channel_len` [batch] int64 (how many of the C frames are filled, from the end). A stream begins with
    zeros in all three. Out: `encoder_output` [batch, D, encoder_frames], `encoded_lengths` [batch] int64, and the
    caches with `_out` behind their names. With the layout `batch_first` their first two axes are exchanged.

    The rows of a batch are at one place of their streams: as long as one of them is past its first chunk, all are taken
    to be. The encoder's streaming settings are those that the model has at the time: `streaming_schedule` sets them.
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
            cache_last_channel=self._turned(cache_last_channel),
            cache_last_time=self._turned(cache_last_time),
            cache_last_channel_len=cache_last_channel_len,
            bypass_pre_encode=True,
        )
        encoder_output, encoded_lengths, channel, time, channel_len = results
        channel = channel[:, :, -self.cache_frames :]
        return encoder_output, encoded_lengths, self._turned(channel), self._turned(time), channel_len

    def _turned(self, cache: Tensor) -> Tensor:
        """NeMo has the layers first."""
        return cache if self.layout == "layer_first" else cache.transpose(0, 1)

    def first_caches(self, batch: int) -> dict[str, Tensor]:
        """The caches of streams that have heard nothing: zeros."""
        dims = {name: self.inputs[name] for name in ("cache_last_channel", "cache_last_time")}
        caches = {
            name: torch.zeros([batch if isinstance(dim, str) else dim for dim in shape]) for name, shape in dims.items()
        }
        return {**caches, "cache_last_channel_len": torch.zeros(batch, dtype=torch.int64)}

    def sample(self, sizes: Sizes, seed: int) -> tuple[Tensor, ...]:
        """Rows of different length in the middle of a stream, caches filled; `cached` in `sizes` fills fewer frames.

        With 0 it is the beginning of a stream, whose caches are zero.
        """
        generator = torch.Generator().manual_seed(seed)
        batch, frames, cached = sizes["batch"], sizes["frames"], sizes.get("cached", self.cache_frames)
        audio_signal = torch.randn(batch, self.features, frames, generator=generator)
        length = (frames * 4 ** torch.arange(batch) // 5 ** torch.arange(batch)).clamp(min=1)
        caches = self.first_caches(batch)
        if cached:
            for name in ("cache_last_channel", "cache_last_time"):
                caches[name] = torch.randn(caches[name].shape, generator=generator)
            caches["cache_last_channel_len"] = (cached - torch.arange(batch)).clamp(min=1)
        return (audio_signal, length, *caches.values())
