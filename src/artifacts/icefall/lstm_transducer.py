"""The LSTM transducer of icefall's recipe `lstm_transducer_stateless2`, with the names of its parameters.

Convolutions reduce four feature frames to one; unidirectional LSTM layers with feed-forward blocks follow. The decoder
sees the last few tokens only. The joiner scores one token or blank. The model streams: an output frame depends on no
feature frame after its own nine.

Written from that recipe's published architecture (Apache-2.0; none of its code is here). Two things differ, without
changing a value. The LSTM runs batch first, because pnnx converts the time-first form, with its permutes, into wrong
numbers. Parts of training only (balancers, learned scales, warm-up) are absent: `checkpoint.py` folds the scales of a
raw checkpoint into the weights.

Names of classes, modules and local variables are part of each traced archive: renaming one changes its bytes.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

# The fewest feature frames that make an encoder frame: what a streaming call gives.
CHUNK_FRAMES = 9
SHIFT_FRAMES = 4
CONV_CHANNELS = (8, 32, 128)
# Several times the widest of icefall's models.
MAX_WIDTH = 16_384


class Config(BaseModel):
    """Sizes of the networks, by icefall's keys and with its recipe's defaults. Its other keys concern training only.

    `vocab_size` counts all tokens: `<blk>` is 0 and `<unk>` is 2.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    num_encoder_layers: int = Field(12, ge=1, le=200)
    encoder_dim: int = Field(512, ge=1, le=MAX_WIDTH)
    rnn_hidden_size: int = Field(1024, ge=1, le=MAX_WIDTH)
    vocab_size: int = Field(ge=3, le=200_000)
    context_size: int = Field(2, ge=1, le=100)
    dim_feedforward: int = Field(2048, ge=1, le=MAX_WIDTH)
    decoder_dim: int = Field(512, ge=1, le=MAX_WIDTH)
    joiner_dim: int = Field(512, ge=1, le=MAX_WIDTH)
    feature_dim: int = Field(80, ge=9, le=1024)
    subsampling_factor: Literal[4] = 4
    blank_id: Literal[0] = 0

    @model_validator(mode="after")
    def _projection_makes_smaller(self) -> Config:
        if self.rnn_hidden_size < self.encoder_dim:
            raise ValueError("rnn_hidden_size must not be below encoder_dim")
        return self


class DoubleSwish(nn.Module):
    """x · sigmoid(x − 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as `x`."""
        return x * torch.sigmoid(x - 1.0)


def exponential(number: float) -> float:
    """Return e to the power of `number`, rounded once to float32: the last bit of torch's depends on the processor."""
    return float(np.float32(np.exp(np.longdouble(number))))


class BasicNorm(nn.Module):
    """x / sqrt(mean(x²) + exp(eps)) over the last axis: no mean is subtracted, and nothing is scaled afterwards."""

    eps: Tensor

    def __init__(self, learned: bool) -> None:
        super().__init__()
        eps = torch.tensor(math.log(0.25))
        if learned:
            self.eps = nn.Parameter(eps)
        else:
            self.register_buffer("eps", eps)
        self.ballast: float | None = None

    def fix(self) -> None:
        """Replace exp(eps) by a number, for graphs that shall not compute it."""
        self.ballast = exponential(self.eps.item())

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as `x`."""
        ballast = self.eps.exp() if self.ballast is None else self.ballast
        return x * (torch.mean(x * x, dim=-1, keepdim=True) + ballast).pow(-0.5)


class Subsampling(nn.Module):
    """features [N, T, F] → [N, T', D], T' = ((T − 3) // 2 − 1) // 2."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        first, second, third = CONV_CHANNELS
        self.conv = nn.Sequential(  # icefall has training's balancers where the identities are
            nn.Conv2d(1, first, 3),
            nn.Identity(),
            DoubleSwish(),
            nn.Conv2d(first, second, 3, stride=2),
            nn.Identity(),
            DoubleSwish(),
            nn.Conv2d(second, third, 3, stride=2),
            nn.Identity(),
            DoubleSwish(),
        )
        self.width = third * (((config.feature_dim - 3) // 2 - 1) // 2)
        self.out = nn.Linear(self.width, config.encoder_dim)
        self.out_norm = BasicNorm(learned=False)

    def forward(self, features: Tensor) -> Tensor:
        """float32 in and out."""
        x = self.conv(features.unsqueeze(1))
        x = x.permute(0, 2, 1, 3).reshape(features.shape[0], -1, self.width)
        return self.out_norm(self.out(x))  # type: ignore[no-any-return]  # torch's modules are untyped


class EncoderLayer(nn.Module):
    """[N, T, D] with states h [1, N, D], c [1, N, H] → the same three."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        projected = config.encoder_dim if config.rnn_hidden_size > config.encoder_dim else 0
        self.lstm = nn.LSTM(config.encoder_dim, config.rnn_hidden_size, batch_first=True, proj_size=projected)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.encoder_dim, config.dim_feedforward),
            nn.Identity(),
            DoubleSwish(),
            nn.Identity(),
            nn.Linear(config.dim_feedforward, config.encoder_dim),
        )
        self.norm_final = BasicNorm(learned=True)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """float32 in and out."""
        heard, (h, c) = self.lstm(x, (h, c))
        x = heard + x
        return self.norm_final(x + self.feed_forward(x)), h, c


class LayerStack(nn.Module):
    """The LSTM layers, under icefall's name for them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_encoder_layers))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [N, T, D], h [L, N, D], c [L, N, H] → the same three."""
        hs, cs = [], []
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN")
            for index, layer in enumerate(self.layers):
                x, h_out, c_out = layer(x, h[index : index + 1], c[index : index + 1])
                hs.append(h_out)
                cs.append(c_out)
        return x, torch.cat(hs, 0), torch.cat(cs, 0)


class Encoder(nn.Module):
    """features [N, T, F], h [L, N, D], c [L, N, H] → encoder_out [N, T', D], and h and c after it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.encoder_embed = Subsampling(config)
        self.encoder = LayerStack(config)

    def forward(self, features: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """float32 in and out."""
        return self.encoder(self.encoder_embed(features), h, c)  # type: ignore[no-any-return]  # as above


class Decoder(nn.Module):
    """Token ids [N, U + context_size − 1] → [N, U, decoder_dim]: an output depends on `context_size` ids."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dim, context = config.decoder_dim, config.context_size
        self.embedding = nn.Embedding(config.vocab_size, dim)
        self.conv = nn.Conv1d(dim, dim, context, groups=dim, bias=False) if context > 1 else nn.Identity()

    def forward(self, y: Tensor) -> Tensor:
        """int64 in, float32 out."""
        embedded = self.embedding(y)
        return torch.relu(self.conv(embedded.permute(0, 2, 1)).permute(0, 2, 1))


class Joiner(nn.Module):
    """encoder_out […, D] and decoder_out […, decoder_dim] → logits […, vocab_size]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.encoder_proj = nn.Linear(config.encoder_dim, config.joiner_dim)
        self.decoder_proj = nn.Linear(config.decoder_dim, config.joiner_dim)
        self.output_linear = nn.Linear(config.joiner_dim, config.vocab_size)

    def forward(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        """float32 in and out; logits, not probabilities."""
        joined = self.encoder_proj(encoder_out) + self.decoder_proj(decoder_out)
        return self.output_linear(torch.tanh(joined))  # type: ignore[no-any-return]  # as above


class LstmTransducer(nn.Module):
    """The three networks of one model."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.joiner = Joiner(config)

    def zero_states(self, batch: int = 1) -> tuple[Tensor, Tensor]:
        """Return h [L, N, D] and c [L, N, H] of the beginning of a stream, float32."""
        config = self.config
        h = torch.zeros(config.num_encoder_layers, batch, config.encoder_dim)
        return h, torch.zeros(config.num_encoder_layers, batch, config.rnn_hidden_size)
