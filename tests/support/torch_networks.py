"""Run an icefall LSTM transducer with torch, chunk by chunk, as a streaming decoder does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from artifacts.icefall.lstm_transducer import LstmTransducer

Array = npt.NDArray[np.float32]
States = tuple[Tensor, Tensor]


class TorchNetworks:
    """The networks that `artifacts.speech.streaming_rnnt` calls, of a model in evaluation mode."""

    def __init__(self, model: LstmTransducer) -> None:
        self._model = model
        self.context_size = model.config.context_size

    def zero_states(self) -> States:
        """h `[L, 1, D]` and c `[L, 1, H]` at the beginning of a stream."""
        return self._model.zero_states()

    @torch.no_grad()
    def encode(self, features: Array, states: States) -> tuple[Array, States]:
        """Features `[T, F]` and states → encoder frames `[T', D]`, and the states after them."""
        out, h, c = self._model.encoder(torch.from_numpy(np.ascontiguousarray(features))[None], *states)
        return out[0].numpy(), (h, c)

    @torch.no_grad()
    def predict(self, tokens: list[int]) -> Array:
        """The last tokens → the decoder's output `[decoder_dim]`."""
        output: Array = self._model.decoder(torch.tensor([tokens]))[0, 0].numpy()
        return output

    @torch.no_grad()
    def join(self, frame: Array, prediction: Array) -> Array:
        """An encoder frame `[D]` and the decoder's output → logits `[V]`."""
        logits: Array = self._model.joiner(torch.from_numpy(frame), torch.from_numpy(prediction)).numpy()
        return logits
