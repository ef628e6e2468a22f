"""The steps that read models, speech and what belongs to them, each with sound inputs of which one is to be broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from faults.broken_files import EXTERNAL, ONNX, Damage, json_file, places
from faults.broken_ncnn import NETWORK, TABLE, TRACE
from faults.broken_speech import CORPUS, STATISTICS, token_lines

KINDS: dict[str, dict[str, Damage]] = {
    "onnx": ONNX,
    "external": EXTERNAL,
    "corpus": CORPUS,
    "statistics": STATISTICS,
    "tokens": token_lines("tokens.txt"),
    "vocab": token_lines("vocab.txt"),
    "meta": json_file("model_meta.json"),
    "config": json_file("config.json"),
    "ncnn": NETWORK,
    "table": TABLE,
    "trace": TRACE,
    "any": places("*.onnx"),
}


@dataclass(frozen=True)
class Use:
    """A step with its parameters and inputs, by the names of `sound_inputs`; `broken` says what breaks in which."""

    step: str
    inputs: Mapping[str, str]
    broken: Mapping[str, str]
    params: Mapping[str, Any] = field(default_factory=dict)


_MODEL = {"model": "onnx"}
_DECODER, _ENCODER, _LOOSE = {"model": "decoder_joint_fp32"}, {"model": "encoder_fp32"}, {"model": "loose"}
_SPEECH = {"preprocessor": "preprocessor", "tokens": "tokens", "model_meta": "model_meta", "corpus": "corpus"}
_STREAM = {
    name: f"streaming/{target}"
    for name, target in {
        "encoder": "streaming_encoder_batch_first",
        "predictor": "predictor_fp32",
        "joint": "joint_fp32",
        "tokens": "tokens",
        "model_meta": "model_meta",
    }.items()
}
_NCNN = {"encoder": "ncnn/encoder_ncnn_fp32", "predictor": "ncnn/predictor_ncnn_fp32", "joint": "ncnn/joint_ncnn_fp16"}
_LSTM = {
    "encoder": "lstm/encoder_sherpa_fp32",
    "predictor": "lstm/predictor_ncnn_fp32",
    "joint": "lstm/joint_ncnn_fp32",
}
_NETWORKS = dict.fromkeys(("encoder", "predictor", "joint"), "ncnn")
_SMALL = {"min_elements": 64}


def _each(
    step: str, inputs: Mapping[str, str], broken: Mapping[str, str], params: Mapping[str, Any] = {}
) -> Iterator[Use]:
    for name, kind in broken.items():
        yield Use(step, inputs, {name: kind}, params)


USES: tuple[Use, ...] = (
    *(
        use
        for inputs, kind in ((_DECODER, "onnx"), (_ENCODER, "onnx"), (_LOOSE, "external"))
        for step, params in (
            ("shard_weights", {}),
            ("convert_fp16", {}),
            ("convert_fp16", {"converter": "onnxconverter-common"}),
            ("quantize_dynamic", {}),
            ("quantize_dynamic", {"op_types": ["MatMul", "LSTM", "Gather", "Conv"], "per_channel": True}),
            ("quantize_nbits", {}),
            ("quantize_weights", _SMALL),
            ("quantize_weights", {"per_channel": True, **_SMALL}),
            ("round_weights", _SMALL),
            ("inject_outliers", {}),
            ("measure_size", {}),
        )
        for use in _each(step, inputs, {"model": kind}, params)
    ),
    *_each("fix_fp16_casts", {"model": "encoder_fp16"}, _MODEL),
    *_each("fix_fp16_casts", {"model": "decoder_joint_fp16"}, _MODEL),
    *(
        use
        for step, params in (
            ("quantize_static", {}),
            ("quantize_static", {"format": "qoperator"}),
            ("smooth_activations", {}),
        )
        for use in _each(
            step, {**_ENCODER, "statistics": "statistics"}, {"model": "onnx", "statistics": "statistics"}, params
        )
    ),
    *_each(
        "calibrate_activations",
        {**_ENCODER, "preprocessor": "preprocessor", "corpus": "corpus"},
        {"model": "onnx", "preprocessor": "onnx", "corpus": "corpus"},
        {"min_seconds": 0, "long_seconds": None},
    ),
    *_each(
        "measure_wer",
        {"encoder": "encoder_fp32", "decoder_joint": "decoder_joint_fp32", **_SPEECH},
        {
            "encoder": "onnx",
            "decoder_joint": "onnx",
            "preprocessor": "onnx",
            "tokens": "vocab",
            "model_meta": "meta",
            "corpus": "corpus",
        },
    ),
    *_each(
        "measure_wer",
        {"encoder": "encoder_fp32", "predictor": "predictor_fp32", "joint": "joint_fp32", **_SPEECH},
        {"predictor": "onnx", "joint": "onnx", "model_meta": "meta"},
        {"buffered": {}},
    ),
    *_each(
        "measure_drift",
        {**_ENCODER, "reference": "encoder_fp32", "preprocessor": "preprocessor", "corpus": "corpus"},
        {"model": "onnx", "reference": "onnx", "preprocessor": "onnx", "corpus": "corpus"},
    ),
    *_each(
        "measure_drift",
        {
            **_DECODER,
            "reference": "decoder_joint_fp32",
            "encoder": "encoder_fp32",
            "preprocessor": "preprocessor",
            "corpus": "corpus",
            "model_meta": "model_meta",
        },
        {"model": "onnx", "reference": "onnx", "encoder": "onnx", "model_meta": "meta"},
    ),
    *_each(
        "measure_streaming_wer",
        {**_STREAM, "preprocessor": "streaming/preprocessor", "corpus": "corpus"},
        {
            "encoder": "onnx",
            "predictor": "onnx",
            "joint": "onnx",
            "preprocessor": "onnx",
            "tokens": "vocab",
            "model_meta": "meta",
        },
    ),
    *_each(
        "fuse_decoder_joint",
        {"predictor": "predictor_fp32", "joint": "joint_fp32"},
        {"predictor": "onnx", "joint": "onnx"},
    ),
    *_each("join_recordings", {"corpus": "corpus"}, {"corpus": "corpus"}, {"seconds": [1], "orders": 2}),
    *_each(
        "lay_out_onnx_asr",
        {
            "encoder_fp32": "encoder_fp32",
            "decoder_joint_fp32": "decoder_joint_fp32",
            "tokens": "tokens",
            "model_meta": "model_meta",
            "preprocessor": "preprocessor",
        },
        {
            "encoder_fp32": "onnx",
            "decoder_joint_fp32": "onnx",
            "preprocessor": "onnx",
            "tokens": "vocab",
            "model_meta": "config",
        },
    ),
    *_each(
        "lay_out_sherpa_onnx_streaming",
        _STREAM,
        {"encoder": "onnx", "predictor": "onnx", "joint": "onnx", "tokens": "tokens", "model_meta": "meta"},
    ),
    *_each(
        "lay_out_ncnn",
        {**_NCNN, "preprocessor": "preprocessor", "tokens": "tokens", "model_meta": "model_meta"},
        {**_NETWORKS, "preprocessor": "any", "tokens": "vocab", "model_meta": "meta"},
    ),
    *_each(
        "lay_out_sherpa_ncnn",
        {**_LSTM, "tokens": "lstm/tokens", "corpus": "corpus"},
        {**_NETWORKS, "tokens": "tokens", "corpus": "corpus"},
    ),
    *_each(
        "measure_ncnn_wer",
        {**_NCNN, **_SPEECH},
        {**_NETWORKS, "preprocessor": "onnx", "tokens": "vocab", "model_meta": "meta"},
    ),
    *_each(
        "measure_sherpa_ncnn_wer",
        {**_LSTM, "tokens": "lstm/tokens", "corpus": "corpus"},
        {**_NETWORKS, "tokens": "tokens"},
    ),
    *_each(
        "calibrate_ncnn",
        {
            **_NCNN,
            "encoder": "ncnn/encoder_ncnn_linear",
            "preprocessor": "preprocessor",
            "model_meta": "model_meta",
            "corpus": "corpus",
        },
        {**_NETWORKS, "model_meta": "meta"},
        {"min_seconds": 0},
    ),
    *_each(
        "calibrate_sherpa_ncnn",
        {**_LSTM, "encoder": "lstm/encoder_ncnn_linear", "corpus": "corpus"},
        {**_NETWORKS, "corpus": "corpus"},
        {"min_seconds": 0},
    ),
    *_each("tag_sherpa_ncnn", {"encoder": "lstm/encoder_ncnn_fp32"}, {"encoder": "ncnn"}),
    *_each("rewrite_ncnn_linears", {"model": "lstm/encoder_ncnn_fp32"}, {"model": "ncnn"}),
    *_each("quantize_ncnn_int8", {"model": "lstm/encoder_ncnn_fp32"}, {"model": "ncnn"}),
    *_each(
        "quantize_ncnn_int8",
        {"model": "lstm/joint_ncnn_fp32", "table": "lstm/scales_ncnn"},
        {"model": "ncnn", "table": "table"},
    ),
    *_each("convert_pnnx", {"traced": "lstm/traced_joint"}, {"traced": "trace"}),
)
