"""The networks of a transducer for one utterance in its full length, for runtimes without masks.

ncnn has neither batches nor the operators of NeMo's masks. With one utterance, as long as its features, there is
nothing to mask. Three computations differ from `networks.py` in their order, so that every length can vary after pnnx
has converted the trace:

* relative shift: the padded scores are cut as one row for each head instead of one for each position. A length that
  results from a reshape would be fixed at that of the trace. Bit for bit the same;
* pointwise convolutions are linear layers, which ncnn quantises; the sums may round otherwise;
* the LSTM takes the batch first: time first converts without an error and computes something else.

Shapes are those of `networks.py` with a batch of 1. All values are float32, but `y` is int64.
Names of classes, modules and local variables are part of each traced archive: renaming one changes its bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from artifacts.errors import StepError
from artifacts.model.network import Network, Sizes

if TYPE_CHECKING:
    from nemo.collections.asr.modules import ConformerEncoder
    from nemo.collections.asr.parts.submodules.conformer_modules import ConformerConvolution

    from artifacts.nemo.transducer import Transducer


class UnbatchedEncoder(Network):
    """audio_signal [1, features, frames] → encoder_output [1, D, encoder_frames].

    All frames are valid: padding must be cut off before. The output has at most `max_encoder_frames`: the table of
    relative positions, `2 * max_encoder_frames - 1` rows, is part of the network.
    """

    positions: Tensor

    def __init__(self, model: Transducer, max_seconds: float | None = None) -> None:
        """Shorten the table, which is float32 whatever the rest is, to `max_seconds`; None keeps its length.

        Raises StepError if the encoder needs masks even so, or if its table is shorter than that.
        """
        encoder, preprocessor = model.encoder, model.cfg.preprocessor
        _check_that_no_mask_is_needed(encoder)
        super().__init__(
            {"audio_signal": (1, preprocessor.features, "frames")},
            {"encoder_output": (1, encoder.d_model, "encoder_frames")},
        )
        self.subsampling, self.layers = encoder.pre_encode, encoder.layers
        self.scale = encoder.pos_enc.xscale
        whole = encoder.pos_emb_max_len
        frames_per_second = preprocessor.sample_rate / (preprocessor.hop_samples * encoder.subsampling_factor)
        wanted = whole if max_seconds is None else math.ceil(max_seconds * frames_per_second)
        if wanted > whole:
            raise StepError(
                f"max_seconds: the checkpoint's table of positions ends at {whole / frames_per_second:g} s, "
                f"got {max_seconds:g}",
                "give less, or leave max_seconds out for the whole table",
            )
        self.max_encoder_frames = wanted
        table = encoder.pos_enc.pe  # longer than `whole` once NeMo has met a longer utterance
        middle = table.shape[1] // 2
        self.register_buffer("positions", table[:, middle - wanted + 1 : middle + wanted].clone())

    def forward(self, audio_signal: Tensor) -> tuple[Tensor]:
        x = audio_signal.transpose(1, 2).unsqueeze(1)
        for layer in self.subsampling.conv:
            x = layer(x)
        x = self.subsampling.out(x.transpose(1, 2).reshape(1, -1, self.subsampling.out.in_features))
        if self.scale:
            x = x * self.scale
        frames = x.size(1)
        positions = self.positions[:, self.max_encoder_frames - frames : self.max_encoder_frames + frames - 1]
        with _open_lengths(self.layers):
            for layer in self.layers:
                x = layer(x, pos_emb=positions)
        return (x.transpose(1, 2),)


class UnbatchedPredictor(Network):
    """y [1, 1], h and c [L, 1, H] → g [1, 1, H], h_out and c_out [L, 1, H].

    One token at a time. The first is blank (its embedding is zero), with zeros as `h` and `c`.
    """

    def __init__(self, model: Transducer) -> None:
        decoder = model.decoder
        layers = decoder.prediction["dec_rnn"]
        nemos = getattr(layers, "lstm", None)
        if not isinstance(nemos, nn.LSTM):
            raise StepError(
                f"the predictor is a {type(layers).__name__}, only plain LSTM layers convert",
                "give a checkpoint whose decoder has normalization_mode: null",
            )
        state = (decoder.pred_rnn_layers, 1, decoder.pred_hidden)
        super().__init__(
            {"y": (1, 1), "h": state, "c": state}, {"g": (1, 1, decoder.pred_hidden), "h_out": state, "c_out": state}
        )
        self.embed = decoder.prediction["embed"]
        self.lstm = nn.LSTM(nemos.input_size, nemos.hidden_size, nemos.num_layers, batch_first=True).eval()
        self.lstm.load_state_dict(nemos.state_dict())
        self.lstm.requires_grad_(False)

    def forward(self, y: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        g, (h_out, c_out) = self.lstm(self.embed(y), (h, c))
        return g, h_out, c_out

    def sample(self, sizes: Sizes, seed: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        _, h, c = super().sample(sizes, seed)
        return torch.randint(self.embed.num_embeddings, (1, 1), generator=generator), h, c


class UnbatchedJoint(Network):
    """encoder_output [1, D], predictor_output [1, H] → joint_output [1, V]: one frame after one token.

    V is the tokens, blank, and one for each duration; the values are logits as they leave the last layer.
    """

    def __init__(self, model: Transducer) -> None:
        joint = model.joint
        super().__init__(
            {"encoder_output": (1, joint.encoder_hidden), "predictor_output": (1, joint.pred_hidden)},
            {"joint_output": (1, joint.num_classes_with_blank)},
        )
        self.joint = joint

    def forward(self, encoder_output: Tensor, predictor_output: Tensor) -> tuple[Tensor]:
        encoded, predicted = self.joint.project_encoder(encoder_output), self.joint.project_prednet(predictor_output)
        return (self.joint.joint_net(encoded + predicted),)


def _check_that_no_mask_is_needed(encoder: ConformerEncoder) -> None:
    """Refuse an encoder of limited context, which masks what it may not see, and one of another structure."""
    fix = "give an offline FastConformer, such as Parakeet's"
    if encoder.self_attention_model != "rel_pos" or list(encoder.att_context_size) != [-1, -1]:
        raise StepError(
            f"the encoder attends '{encoder.self_attention_model}' within {list(encoder.att_context_size)}, "
            "only 'rel_pos' over the whole utterance needs no mask",
            fix,
        )
    if not getattr(encoder.pre_encode, "conv2d_subsampling", False):
        raise StepError("the encoder does not begin with convolutions over time and frequency", fix)
    if encoder.reduction_position is not None or encoder.out_proj is not None:
        raise StepError("the encoder has a second subsampling or an output layer", fix)


@contextmanager
def _open_lengths(layers: Iterable[Any]) -> Iterator[None]:
    """Make the layers compute in the order that the module's docstring describes; restore them at the end."""
    for layer in layers:
        layer.self_attn.rel_shift = relative_shift
        layer.conv.forward = partial(_convolve, layer.conv)
    try:
        yield
    finally:
        for layer in layers:
            del layer.self_attn.rel_shift, layer.conv.forward


def relative_shift(scores: Tensor) -> Tensor:
    """Return scores by absolute position, from scores [1, heads, T, 2 T - 1] by relative position.

    Dai et al. 2019, "Transformer-XL", appendix B.
    """
    _, heads, frames, positions = scores.size()
    row = nn.functional.pad(scores, (1, 0)).reshape(1, heads, -1)
    return row[:, :, frames:].reshape(1, heads, frames, positions)


def _convolve(module: ConformerConvolution, x: Tensor, pad_mask: None, cache: None) -> Tensor:
    """Apply the Conformer's convolution module (Gulati et al. 2020, section 2.2) to x [1, T, D], without a mask."""
    x = nn.functional.glu(_pointwise(module.pointwise_conv1, x), dim=-1)
    x = module.depthwise_conv(x.transpose(1, 2))
    if module.norm_type == "layer_norm":
        x = module.batch_norm(x.transpose(1, 2))
    else:
        x = module.batch_norm(x).transpose(1, 2)
    return _pointwise(module.pointwise_conv2, module.activation(x))


def _pointwise(convolution: nn.Conv1d, x: Tensor) -> Tensor:
    return nn.functional.linear(x, convolution.weight.squeeze(-1), convolution.bias)
