"""The three networks of a transducer, with named inputs and outputs, to be exported; and their batch norms folded.

Each network calls the model's own NeMo functions. All values are float32, but `length`, `encoded_lengths` and `y` are
int64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from artifacts.model.network import Network, Sizes, shape_of

if TYPE_CHECKING:
    from nemo.collections.asr.modules import RNNTJoint

    from artifacts.nemo.transducer import Transducer


class EncoderNetwork(Network):
    """audio_signal [batch, features, frames], length [batch] → encoder_output [batch, D, encoder_frames],
    encoded_lengths [batch].

    `length` counts the valid frames of each row. The frames after them do not change the valid part of the output. The
    graph takes up to `pos_emb_max_len` encoder frames, 5000 in Parakeet: 40,000 feature frames or 400 s. NeMo extends
    its table of relative positions for longer inputs; in the graph the table is a constant.
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
        """Return rows of different length: the first is full, each next row has four fifths of the one before."""
        generator = torch.Generator().manual_seed(seed)
        audio_signal = torch.randn(shape_of(self.inputs["audio_signal"], sizes), generator=generator)
        return audio_signal, shrinking_lengths(sizes["batch"], sizes["frames"])


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
    """encoder_output [batch, D, encoder_frames], predictor_output [batch, H, tokens] → joint_output [batch,
    encoder_frames, tokens, V].

    V is the number of tokens and durations, plus one for blank. The values are the last layer's logits.
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
    """Turn off the log-softmax with which NeMo's joint ends by default on the CPU."""
    before = joint.log_softmax
    joint.log_softmax = False
    try:
        yield
    finally:
        joint.log_softmax = before


def shrinking_lengths(rows: int, frames: int) -> Tensor:
    """Return the lengths [rows] of a batch, int64.

    The first row has all frames, each next row four fifths of the one before, but at least one.
    """
    numbers = torch.arange(rows)
    return (frames * 4**numbers // 5**numbers).clamp(min=1)


@contextmanager
def folded_batch_norms(network: nn.Module) -> Iterator[None]:
    """Fold the batch normalisation of each Conformer convolution of `network`; restore it afterwards.

    torch's exporter and pnnx fold too, in float32 with the instructions of the processor at hand. The last bits of the
    weights would then be those of one machine. Here each weight is computed in float64 and rounded once.
    Memory: one more copy of each depthwise weight.
    """
    from nemo.collections.asr.parts.submodules.conformer_modules import ConformerConvolution

    modules = [module for module in network.modules() if isinstance(module, ConformerConvolution)]
    before = [
        (module, module.batch_norm, module.depthwise_conv.weight, module.depthwise_conv.bias)
        for module in modules
        if isinstance(module.batch_norm, nn.BatchNorm1d)
    ]
    try:
        for module, norm, weight, bias in before:
            folded_weight, folded_bias = fold_batch_norm(weight, bias, norm)
            module.depthwise_conv.weight = nn.Parameter(folded_weight, requires_grad=False)
            module.depthwise_conv.bias = nn.Parameter(folded_bias, requires_grad=False)
            module.batch_norm = nn.Identity()
        yield
    finally:
        for module, norm, weight, bias in before:
            module.batch_norm = norm
            module.depthwise_conv.weight, module.depthwise_conv.bias = weight, bias


def fold_batch_norm(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Return weight [C, ...] and bias [C], float32, of a convolution that equals the given one followed by `norm`.

    Ioffe and Szegedy 2015, "Batch Normalization", algorithm 2: y = (x - mean) * gamma / sqrt(variance + eps) + beta.
    """
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("the normalisation has no statistics to fold")
    gamma = norm.weight.double() if norm.affine else 1.0
    scale = gamma / (variance.double() + norm.eps).sqrt()
    offset = (torch.zeros_like(mean) if bias is None else bias).double() - mean.double()
    beta = norm.bias.double() if norm.affine else 0.0
    by_channel = scale.reshape(-1, *[1] * (weight.dim() - 1))
    return (weight.double() * by_channel).float(), (offset * scale + beta).float()
