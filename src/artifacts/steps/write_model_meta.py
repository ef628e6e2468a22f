"""Write the sizes, ids and tokens of a .nemo checkpoint's model as JSON, for the programs that run it.

`model_meta.json` has the keys that TensorRT applications read: sizes, ids, durations, tokens, and the shapes of all
inputs and outputs of the exported networks. onnx-asr reads `config.json` beside its models. Without
`features_size` in that file, onnx-asr assumes 80.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from artifacts.params import StepParams

if TYPE_CHECKING:
    from artifacts.model.model_meta import ModelMetaContent
    from artifacts.nemo.model_config import ModelConfig

TOOLS = ("sentencepiece",)


class Params(StepParams):
    """The name of the model."""

    model_name: str = Field("parakeet-tdt", min_length=1)
    """The model's name in `model_meta.json`; the checkpoint itself has none."""


def run(out: Path, params: Params, *, checkpoint: Path) -> None:
    """Write `model_meta.json` and `config.json` from the .nemo file; neither torch nor NeMo is needed.

    Raises StepError if the checkpoint is not supported.
    """
    from artifacts.nemo.archive import open_archive
    from artifacts.nemo.model_config import read_config
    from artifacts.nemo.pieces import read_pieces

    with open_archive(checkpoint) as archive:
        config = read_config(archive)
        pieces = read_pieces(archive, config)
    _model_meta(config, pieces, params.model_name).write(out / "model_meta.json")
    _write_onnx_asr_config(config, out / "config.json")


def _model_meta(config: ModelConfig, pieces: list[str], model_name: str) -> ModelMetaContent:
    from artifacts.model.model_meta import Features, ModelMetaContent, TensorLayout

    preprocessor, prednet = config.preprocessor, config.decoder.prednet
    features, d_model, hidden = preprocessor.features, config.encoder.d_model, prednet.pred_hidden
    state = f"[{prednet.pred_rnn_layers}, B, {hidden}]"
    return ModelMetaContent(
        model_name=model_name,
        sample_rate=preprocessor.sample_rate,
        labels=pieces,
        blank_id=config.blank_id,
        tokenizer_vocab_size=len(pieces),
        joint_vocab_size=config.joint_width,
        duration_values=list(config.decoding.durations),
        max_symbols=config.decoding.greedy.max_symbols,
        subsampling_factor=config.encoder.subsampling_factor,
        max_encoder_frames=config.encoder.pos_emb_max_len,
        pred_rnn_layers=prednet.pred_rnn_layers,
        pred_hidden=hidden,
        tensor_layout_contract=TensorLayout(
            encoder_input=f"audio_signal: [B, {features}, T], length: [B]",
            encoder_output=f"encoder_output: [B, {d_model}, T'], encoded_lengths: [B]",
            predictor_input=f"y: [B, U], h: {state}, c: {state}",
            predictor_output=f"g: [B, {hidden}, U], h_out: {state}, c_out: {state}",
            joint_input=f"encoder_output: [B, {d_model}, T'], predictor_output: [B, {hidden}, U]",
            joint_output=f"joint_output: [B, T', U, {config.joint_width}]",
        ),
        features=Features(
            type="log-mel",
            n_fft=preprocessor.fft_samples,
            n_mels=features,
            win_length=preprocessor.window_samples,
            hop_length=preprocessor.hop_samples,
            normalize=preprocessor.normalize,
        ),
    )


def _write_onnx_asr_config(config: ModelConfig, path: Path) -> None:
    max_symbols = config.decoding.greedy.max_symbols
    values = {
        "model_type": "nemo-conformer-tdt" if config.decoding.durations else "nemo-conformer-rnnt",
        "features_size": config.preprocessor.features,
        "subsampling_factor": config.encoder.subsampling_factor,
        **({} if max_symbols is None else {"max_tokens_per_step": max_symbols}),
    }
    path.write_bytes((json.dumps(values, ensure_ascii=False, indent=2) + "\n").encode())
