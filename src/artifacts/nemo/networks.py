"""The three networks of a transducer as modules with named inputs and outputs, ready to be traced.

Each calls the model's own NeMo functions. Its tables `inputs` and `outputs` say the dimensions: a number is fixed by
the checkpoint, a word is the name of an axis that can vary. All values are float32 but for `length`,
`encoded_lengths` and `y`, which are int64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from artifacts.model.network import Network, Sizes, shape_of

if TYPE_CHECKING:
    from nemo.collections.asr.modules import RNNTJoint

    from artifacts.nemo.transducer import Transducer


class EncoderNetwork(Network):
    """audio_signal [batch, features, frames], length [batch] → encoder_output [batch, D, encoder_frames],
    encoded_lengths [batch].

    `length` counts the valid frames of each row; what follows them changes nothing of the valid part. The graph takes
    up to `pos_emb_max_len` encoder frames, 5000 in Parakeet: 40,000 frames or 400 s. NeMo enlarges its table of
    relative positions when it is given more; in the graph the table is a constant.
    """

    def __init__(self, model: Transducer) -> None:
        features, d_model = model.cfg.preprocessor.features, model.encoder.d_model
        super().__init__(
            {"audio_signal": ("batch", features, "frames"), "length": ("batch",)},
            {"encoder_output": ("batch", d_model, "encoder_frames"), "encoded_lengths": ("batch",)},
        )
        self.encoder = model.encoder

    def forward(self, audio_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        encoder_output, encoded_lengths = self.encoder.forward_internal(audio_signal, length)
        return encoder_output, encoded_lengths

    def sample(self, sizes: Sizes, seed: int) -> tuple[Tensor, ...]:
        """Rows of different length: the first is full, each next one has a fifth less."""
        generator = torch.Generator().manual_seed(seed)
        audio_signal = torch.randn(shape_of(self.inputs["audio_signal"], sizes), generator=generator)
        rows = torch.arange(sizes["batch"])
        return audio_signal, (sizes["frames"] * 4**rows // 5**rows).clamp(min=1)


class PredictorNetwork(Network):
    """y [batch, tokens], h and c [L, batch, H] → g [batch, H, tokens], h_out and c_out [L, batch, H].

    No start symbol is prepended: the first call gives blank as `y` (its embedding is zero) and zeros as `h` and `c`.
    """

    def __init__(self, model: Transducer) -> None:
        layers, hidden = model.decoder.pred_rnn_layers, model.decoder.pred_hidden
        state = (layers, "batch", hidden)
        super().__init__(
            {"y": ("batch", "tokens"), "h": state, "c": state},
            {"g": ("batch", hidden, "tokens"), "h_out": state, "c_out": state},
        )
        self.decoder = model.decoder

    def forward(self, y: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        g, (h_out, c_out) = self.decoder.predict(y, state=(h, c), add_sos=False)
        return g.transpose(1, 2), h_out, c_out

    def sample(self, sizes: Sizes, seed: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        y = torch.randint(self.decoder.blank_idx + 1, shape_of(self.inputs["y"], sizes), generator=generator)
        h, c = (torch.randn(shape_of(self.inputs[name], sizes), generator=generator) for name in "hc")
        return y, h, c


class JointNetwork(Network):
    """encoder_output [batch, D, frames], predictor_output [batch, H, tokens] → joint_output [batch, frames, tokens, V].

    V is the tokens, blank, and one for each duration; the values are logits as they leave the last layer.
    """

    def __init__(self, model: Transducer) -> None:
        joint = model.joint
        super().__init__(
            {
                "encoder_output": ("batch", joint.encoder_hidden, "encoder_frames"),
                "predictor_output": ("batch", joint.pred_hidden, "tokens"),
            },
            {"joint_output": ("batch", "encoder_frames", "tokens", joint.num_classes_with_blank)},
        )
        self.joint = joint

    def forward(self, encoder_output: Tensor, predictor_output: Tensor) -> tuple[Tensor]:
        with _raw_logits(self.joint):
            return (self.joint.joint(encoder_output.transpose(1, 2), predictor_output.transpose(1, 2)),)


@contextmanager
def _raw_logits(joint: RNNTJoint) -> Iterator[None]:
    """On the CPU NeMo's joint ends in a log-softmax unless it is told otherwise."""
    before = joint.log_softmax
    joint.log_softmax = False
    try:
        yield
    finally:
        joint.log_softmax = before
