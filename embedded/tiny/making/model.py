"""The model: Parakeet-TDT-0.6b-v3's configuration in small.

v3 is a FastConformer encoder (1024 wide, 24 layers) with a token-and-duration transducer on top; here it is 96 wide
with 5 layers, and the vocabulary has 128 pieces in place of 8192. Dropout is 0, since a model this small and noise that
never repeats do not overfit, and SpecAugment masks less, since these sentences cannot be guessed from their context.
"""

from __future__ import annotations

from pathlib import Path

import torch
from nemo.collections.asr.models import EncDecRNNTBPEModel
from omegaconf import DictConfig, OmegaConf

WIDTH = 96
LAYERS = 5
HEADS = 4
SUBSAMPLING_CHANNELS = 32
PREDICTOR_WIDTH = 96
PREDICTOR_LAYERS = 2
JOINT_WIDTH = 96
DROPOUT = 0.0
DURATIONS = [0, 1, 2, 3, 4]
SAMPLE_RATE_HZ = 16_000
FEATURES = 128


def configuration(tokenizer_folder: Path) -> DictConfig:
    """The whole NeMo configuration of the model; the data sets are left out, `train.py` feeds the model itself."""
    modules = "nemo.collections.asr.modules"
    return OmegaConf.create(
        {
            "sample_rate": SAMPLE_RATE_HZ,
            "compute_eval_loss": False,
            "log_prediction": False,
            "rnnt_reduction": "mean_volume",
            "skip_nan_grad": False,
            "model_defaults": {
                "enc_hidden": WIDTH,
                "pred_hidden": PREDICTOR_WIDTH,
                "joint_hidden": JOINT_WIDTH,
                "tdt_durations": DURATIONS,
                "num_tdt_durations": len(DURATIONS),
            },
            "train_ds": None,
            "validation_ds": None,
            "test_ds": None,
            "tokenizer": {"dir": str(tokenizer_folder), "type": "bpe"},
            "preprocessor": {
                "_target_": f"{modules}.AudioToMelSpectrogramPreprocessor",
                "sample_rate": SAMPLE_RATE_HZ,
                "normalize": "per_feature",
                "window_size": 0.025,
                "window_stride": 0.01,
                "window": "hann",
                "features": FEATURES,
                "n_fft": 512,
                "log": True,
                "frame_splicing": 1,
                "dither": 1e-5,
                "pad_to": 0,
                "pad_value": 0.0,
            },
            "spec_augment": {
                "_target_": f"{modules}.SpectrogramAugmentation",
                "freq_masks": 2,
                "time_masks": 2,
                "freq_width": 20,
                "time_width": 0.05,
            },
            "encoder": {
                "_target_": f"{modules}.ConformerEncoder",
                "feat_in": FEATURES,
                "feat_out": -1,
                "n_layers": LAYERS,
                "d_model": WIDTH,
                "use_bias": False,
                "subsampling": "dw_striding",
                "subsampling_factor": 8,
                "subsampling_conv_channels": SUBSAMPLING_CHANNELS,
                "causal_downsampling": False,
                "reduction": None,
                "reduction_position": None,
                "reduction_factor": 1,
                "ff_expansion_factor": 4,
                "self_attention_model": "rel_pos",
                "n_heads": HEADS,
                "att_context_size": [-1, -1],
                "att_context_style": "regular",
                "xscaling": False,
                "untie_biases": True,
                "pos_emb_max_len": 5000,
                "conv_kernel_size": 9,
                "conv_norm_type": "batch_norm",
                "conv_context_size": None,
                "dropout": DROPOUT,
                "dropout_pre_encoder": DROPOUT,
                "dropout_emb": 0.0,
                "dropout_att": DROPOUT,
                "stochastic_depth_drop_prob": 0.0,
                "stochastic_depth_mode": "linear",
                "stochastic_depth_start_layer": 1,
            },
            "decoder": {
                "_target_": f"{modules}.RNNTDecoder",
                "normalization_mode": None,
                "random_state_sampling": False,
                "blank_as_pad": True,
                "prednet": {
                    "pred_hidden": PREDICTOR_WIDTH,
                    "pred_rnn_layers": PREDICTOR_LAYERS,
                    "t_max": None,
                    "dropout": DROPOUT,
                },
            },
            "joint": {
                "_target_": f"{modules}.RNNTJoint",
                "log_softmax": None,
                "preserve_memory": False,
                "fuse_loss_wer": True,
                "fused_batch_size": 4,
                "jointnet": {
                    "joint_hidden": JOINT_WIDTH,
                    "activation": "relu",
                    "dropout": DROPOUT,
                    "encoder_hidden": WIDTH,
                    "pred_hidden": PREDICTOR_WIDTH,
                },
                "num_extra_outputs": len(DURATIONS),
            },
            "decoding": {
                "strategy": "greedy_batch",
                "model_type": "tdt",
                "durations": DURATIONS,
                "greedy": {"max_symbols": 10},
                "beam": {
                    "beam_size": 2,
                    "return_best_hypothesis": False,
                    "score_norm": True,
                    "tsd_max_sym_exp": 50,
                    "alsd_max_target_len": 2.0,
                },
            },
            "loss": {
                "loss_name": "tdt",
                "tdt_kwargs": {"fastemit_lambda": 0.0, "durations": DURATIONS, "sigma": 0.02, "omega": 0.1},
            },
            "optim": {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.98], "weight_decay": 1e-3},
        }
    )


def build(tokenizer_folder: Path, seed: int) -> EncDecRNNTBPEModel:
    """An untrained model; the same weights for the same seed. Training feeds it directly, so it needs no data sets."""
    torch.manual_seed(seed)
    return EncDecRNNTBPEModel(cfg=configuration(tokenizer_folder))
