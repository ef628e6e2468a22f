"""The three networks of an LSTM transducer, with named inputs and outputs, to be traced for pnnx.

There is one stream, so each batch axis is 1. All values are float32, but lengths and token ids are int64.
Names of classes, modules and local variables are part of each traced archive: renaming one changes its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from artifacts.icefall.lstm_transducer import BasicNorm, LstmTransducer
from artifacts.model.network import Network, Sizes, shape_of


class EncoderNetwork(Network):
    """features [1, frames, F], length [1], h [L, 1, D], c [L, 1, H] → encoder_output [1, encoder_frames, D],
    encoded_length [1], h_out [L, 1, D], c_out [L, 1, H].

    encoder_frames = ((frames − 3) // 2 − 1) // 2. A stream gives 9 frames, gets one encoder frame, and moves on by 4;
    h and c begin as zeros. `length` changes `encoded_length` only: sherpa-ncnn gives the first and ignores the second.
    """

    def __init__(self, model: LstmTransducer) -> None:
        config = model.config
        h = (config.num_encoder_layers, 1, config.encoder_dim)
        c = (config.num_encoder_layers, 1, config.rnn_hidden_size)
        super().__init__(
            {"features": (1, "frames", config.feature_dim), "length": (1,), "h": h, "c": c},
            {
                "encoder_output": (1, "encoder_frames", config.encoder_dim),
                "encoded_length": (1,),
                "h_out": h,
                "c_out": c,
            },
        )
        for module in model.encoder.modules():
            if isinstance(module, BasicNorm):
                module.fix()
        self.encoder = model.encoder

    def forward(self, features: Tensor, length: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        encoder_output, h_out, c_out = self.encoder(features, h, c)
        encoded_length = torch.floor_divide(torch.floor_divide(length - 3, 2) - 1, 2)  # in a form that pnnx converts
        return encoder_output, encoded_length, h_out, c_out

    def sample(self, sizes: Sizes, seed: int) -> tuple[Tensor, ...]:
        """Return features in the range of log-mel ones, and states in the range of an LSTM's."""
        generator = torch.Generator().manual_seed(seed)
        features = torch.randn(shape_of(self.inputs["features"], sizes), generator=generator) * 3 - 8
        h, c = (torch.rand(shape_of(self.inputs[name], sizes), generator=generator) - 0.5 for name in "hc")
        return features, torch.tensor([sizes["frames"]]), h, c


class PredictorNetwork(Network):
    """y [1, context_size], the latest token ids → g [1, 1, decoder_dim]. A stream begins with blanks."""

    def __init__(self, model: LstmTransducer) -> None:
        config = model.config
        super().__init__({"y": (1, config.context_size)}, {"g": (1, 1, config.decoder_dim)})
        self.decoder = model.decoder
        self.vocab_size = config.vocab_size

    def forward(self, y: Tensor) -> tuple[Tensor]:
        return (self.decoder(y),)

    def sample(self, sizes: Sizes, seed: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        return (torch.randint(self.vocab_size, shape_of(self.inputs["y"], sizes), generator=generator),)


class JointNetwork(Network):
    """encoder_output [1, D], predictor_output [1, decoder_dim] → joint_output [1, vocab_size], logits."""

    def __init__(self, model: LstmTransducer) -> None:
        config = model.config
        super().__init__(
            {"encoder_output": (1, config.encoder_dim), "predictor_output": (1, config.decoder_dim)},
            {"joint_output": (1, config.vocab_size)},
        )
        self.joiner = model.joiner

    def forward(self, encoder_output: Tensor, predictor_output: Tensor) -> tuple[Tensor]:
        return (self.joiner(encoder_output, predictor_output),)


NETWORKS: Mapping[str, Callable[[LstmTransducer], Network]] = {
    "encoder": EncoderNetwork, "predictor": PredictorNetwork, "joint": JointNetwork,
}  # fmt: skip
