"""Write what programs have to know about the model of a .nemo checkpoint, as JSON.

`model_meta.json` has the keys that TensorRT applications read: sizes, ids, durations, tokens, and what the tensors of
the exported encoder, predictor and joint look like. `config.json` is what onnx-asr reads beside its models; without
`features_size` it takes 80 for granted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from artifacts.params import StepParams

if TYPE_CHECKING:
    from artifacts.nemo.model_config import ModelConfig

TOOLS = ("sentencepiece",)


class Params(StepParams):
    """`model_name`: what the model is called in `model_meta.json`; the checkpoint itself does not say."""

    model_name: str = Field("parakeet-tdt", min_length=1)


def run(out: Path, params: Params, *, checkpoint: Path) -> None:
    """Write `model_meta.json` and `config.json` from the .nemo file; neither torch nor NeMo is needed.

    Raises StepError if the checkpoint is not a supported one.
    """
    from artifacts.nemo.archive import open_archive
    from artifacts.nemo.model_config import read_config
    from artifacts.nemo.pieces import read_pieces

    with open_archive(checkpoint) as archive:
        config = read_config(archive)
        pieces = read_pieces(archive, config)
    _write(out / "model_meta.json", _model_meta(config, pieces, params.model_name))
    _write(out / "config.json", _onnx_asr_config(config))


def _model_meta(config: ModelConfig, pieces: list[str], model_name: str) -> dict[str, Any]:
    preprocessor, prednet = config.preprocessor, config.decoder.prednet
    features, d_model, hidden = preprocessor.features, config.encoder.d_model, prednet.pred_hidden
    state = f"[{prednet.pred_rnn_layers}, B, {hidden}]"
    return {
        "model_name": model_name,
        "sample_rate": preprocessor.sample_rate,
        "labels": pieces,
        "blank_id": config.blank_id,
        "tokenizer_vocab_size": len(pieces),
        "joint_vocab_size": config.joint_width,
        "duration_values": list(config.decoding.durations),
        "max_symbols": config.decoding.greedy.max_symbols,
        "subsampling_factor": config.encoder.subsampling_factor,
        "max_encoder_frames": config.encoder.pos_emb_max_len,
        "pred_rnn_layers": prednet.pred_rnn_layers,
        "pred_hidden": hidden,
        "tensor_layout_contract": {
            "encoder_input": f"audio_signal: [B, {features}, T], length: [B]",
            "encoder_output": f"encoder_output: [B, {d_model}, T'], encoded_lengths: [B]",
            "predictor_input": f"y: [B, U], h: {state}, c: {state}",
            "predictor_output": f"g: [B, {hidden}, U], h_out: {state}, c_out: {state}",
            "joint_input": f"encoder_output: [B, {d_model}, T'], predictor_output: [B, {hidden}, U]",
            "joint_output": f"joint_output: [B, T', U, {config.joint_width}]",
        },
        "features": {
            "type": "log-mel",
            "n_fft": preprocessor.fft_samples,
            "n_mels": features,
            "win_length": preprocessor.window_samples,
            "hop_length": preprocessor.hop_samples,
            "normalize": preprocessor.normalize,
        },
    }


def _onnx_asr_config(config: ModelConfig) -> dict[str, Any]:
    max_symbols = config.decoding.greedy.max_symbols
    return {
        "model_type": "nemo-conformer-tdt" if config.decoding.durations else "nemo-conformer-rnnt",
        "features_size": config.preprocessor.features,
        "subsampling_factor": config.encoder.subsampling_factor,
        **({} if max_symbols is None else {"max_tokens_per_step": max_symbols}),
    }


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_bytes((json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode())
