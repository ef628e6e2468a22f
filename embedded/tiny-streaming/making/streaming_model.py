"""The model: NVIDIA's cache-aware streaming FastConformer in small, with a plain RNN-T on top.

What makes it stream, against `../tiny`: convolutions that look back only, subsampling included; attention over the
frame's own chunk and a limited past; layer norm where batch norm would stand; features that are not normalised over
the recording. It is trained with two chunk lengths, 1.12 and 0.56 s. There are no durations: sherpa-onnx's streaming
transducer knows none.

It does not start from nothing but from the offline checkpoint, fitted to what has changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from nemo.collections.asr.models import EncDecRNNTBPEModel
from omegaconf import OmegaConf

import model as tiny

if TYPE_CHECKING:
    from omegaconf import DictConfig

ATTENTION_CONTEXTS = [[70, 13], [70, 6]]
LOG_MEL_MEAN, LOG_MEL_STD = -12.8, 2.5  # of the training speech, roughly: what normalisation took away offline


def configuration(tokenizer_folder: Path) -> DictConfig:
    """The NeMo configuration of `../tiny`, with what streaming needs put in its place."""
    configuration = tiny.configuration(tokenizer_folder)
    changes = OmegaConf.create(
        {
            "model_defaults": {"tdt_durations": None, "num_tdt_durations": None},
            "preprocessor": {"normalize": "NA"},
            "spec_augment": {"mask_value": LOG_MEL_MEAN},  # 0 would be a bang
            "encoder": {
                "causal_downsampling": True,
                "att_context_size": ATTENTION_CONTEXTS,
                "att_context_style": "chunked_limited",
                "att_context_probs": [0.5, 0.5],
                "conv_norm_type": "layer_norm",
                "conv_context_size": "causal",
            },
        }
    )
    merged = OmegaConf.merge(configuration, changes)
    for section, keys in {
        "model_defaults": ("tdt_durations", "num_tdt_durations"),
        "joint": ("num_extra_outputs",),
        "decoding": ("model_type", "durations"),
    }.items():
        for key in keys:
            merged[section].pop(key)
    merged.loss = {"loss_name": "warprnnt_numba", "warprnnt_numba_kwargs": {"fastemit_lambda": 0.0}}
    return merged  # type: ignore[return-value]  # a DictConfig, as what it was merged from


def build(tokenizer_folder: Path, seed: int) -> EncDecRNNTBPEModel:
    """An untrained model; the same weights for the same seed."""
    torch.manual_seed(seed)
    return EncDecRNNTBPEModel(cfg=configuration(tokenizer_folder))


def start_from(model: EncDecRNNTBPEModel, offline: EncDecRNNTBPEModel) -> int:
    """Copy from the offline model what fits, and fit three things. Returns how many tensors were taken.

    The joint loses its durations. A depthwise convolution keeps the past half of its kernel, where it was, so that what
    it sees is not late; the future half is lost. The first convolution takes in the mean and the scale that its input
    had lost by normalisation. Layer norms that were batch norms stay as they begin.
    """
    state, taken = model.state_dict(), 0
    for key, theirs in offline.state_dict().items():
        if key.startswith("preprocessor.") or ".conv.batch_norm." in key or key not in state:
            continue
        ours = state[key]
        if key.endswith("depthwise_conv.weight") and key.startswith("encoder.layers."):
            past = theirs.shape[-1] // 2 + 1
            ours.zero_()[..., -past:] = theirs[..., :past]
        elif key == "encoder.pre_encode.conv.0.weight":
            ours.copy_(theirs / LOG_MEL_STD)
        elif key == "encoder.pre_encode.conv.0.bias":
            kernel = offline.state_dict()["encoder.pre_encode.conv.0.weight"]
            ours.copy_(theirs - kernel.sum((1, 2, 3)) * LOG_MEL_MEAN / LOG_MEL_STD)
        elif ours.shape[1:] == theirs.shape[1:] and len(ours) <= len(theirs):
            ours.copy_(theirs[: len(ours)])
        else:
            continue
        taken += 1
    return taken
