"""Lay out a streaming transducer in one flat folder as sherpa-onnx's online recogniser reads it.

`encoder.onnx`, `decoder.onnx` (the predictor), `joiner.onnx` (the joint) and `tokens.txt` are the files for
`OnlineRecognizer.from_transducer`, with `model_type="nemo_transducer"` or none. sherpa-onnx finds values by order, not
by name. It reads the rest from the encoder's metadata, which this step writes: `window_size` and
`chunk_shift` in features, `subsampling_factor`, `vocab_size` without the blank, `normalize_type`, `pred_rnn_layers`,
`pred_hidden`, and the dimensions of the caches after the batch. If one is missing, its process ends.

sherpa-onnx feeds all windows alike, also the first: `window_size` features, each time `chunk_shift` further on. With
empty caches the graph keeps all frames of the first window. So the first chunk is a little longer than NeMo's and
nothing is lost; NeMo's own export loses the first 0.16 s. A stream's last sound is decoded only when enough features
follow to fill a window: append silence before `input_finished`.

No file is a link, and `SHA256SUMS` lists all other files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

    from artifacts.model.model_meta import ModelMeta

TOOLS = ("onnx", "protobuf")
HEADLINE = ("files", "bytes")

ENCODER = (
    ["audio_signal", "length", "cache_last_channel", "cache_last_time", "cache_last_channel_len"],
    [
        "encoder_output",
        "encoded_lengths",
        "cache_last_channel_out",
        "cache_last_time_out",
        "cache_last_channel_len_out",
    ],
)
PREDICTOR = (["y", "h", "c"], ["g", "h_out", "c_out"])
JOINT = (["encoder_output", "predictor_output"], ["joint_output"])


class Params(StepParams):
    """No params: the layout is sherpa-onnx's."""


def run(
    out: Path, params: Params, *, encoder: Path, predictor: Path, joint: Path, tokens: Path, model_meta: Path
) -> dict[str, float | int | str]:
    """Write the folder from three models of one checkpoint; the encoder must have `layout: batch_first`.

    Metrics: files and bytes. Raises StepError for a model that sherpa-onnx cannot stream: with durations, which it
    supports for whole recordings only, with layers as the first axis of the caches, or with other windows than its own.
    """
    from artifacts.files.checksums import write_checksums
    from artifacts.files.copy import copy_file
    from artifacts.model.model_meta import ModelMeta
    from artifacts.speech.decoding import read_decoding, read_vocabulary

    decoding = read_decoding(model_meta / "model_meta.json")
    meta = ModelMeta(model_meta / "model_meta.json", "write the model_meta again from the checkpoint")
    read_vocabulary(tokens / "tokens.txt", decoding)
    if decoding.durations:
        raise StepError(
            f"model_meta.json: duration_values: {list(decoding.durations)}: sherpa-onnx streams no transducer with"
            " durations",
            "give a plain RNN-T",
        )
    _place_encoder(encoder, out / "encoder.onnx", meta)
    _place_predictor(predictor, out / "decoder.onnx", meta)
    _place_joint(joint, out / "joiner.onnx", decoding.blank_id + 1)
    copy_file(tokens / "tokens.txt", out / "tokens.txt")
    return {**write_checksums(out)}


def _place_encoder(folder: Path, target: Path, meta: ModelMeta) -> None:
    from onnx import helper

    from artifacts.model.chunk_schedule import read_chunk_schedule

    model, source = _load(folder, ENCODER)
    own = {entry.key: entry.value for entry in model.metadata_props}
    schedule = read_chunk_schedule(own, source.name)
    channel, time = (_dims(model.graph.input[index], 4) for index in (2, 3))
    if own.get("cache_layout") != "batch_first":
        raise StepError(
            f"{source.name}: its caches are '{own.get('cache_layout')}', sherpa-onnx joins those of streams along the"
            " batch",
            "export the encoder with layout: batch_first",
        )
    if schedule.shift_frames != schedule.chunk_frames or schedule.pre_encode_frames < 1:
        raise StepError(
            f"{source.name}: chunk_frames {schedule.chunk_frames}, shift_frames {schedule.shift_frames}: sherpa-onnx"
            " keeps all frames of a window",
            "export the encoder with chunks that are shifted by their length",
        )
    normalize = meta.value("features.normalize")
    entries = {
        "model_type": "EncDecRNNTBPEModel",
        "version": 1,
        "vocab_size": meta.size("blank_id"),
        "window_size": schedule.pre_encode_frames + schedule.chunk_frames,
        "chunk_shift": schedule.shift_frames,
        "subsampling_factor": meta.size("subsampling_factor"),
        "feat_dim": _dims(model.graph.input[0], 3)[1],
        "normalize_type": normalize if normalize == "per_feature" else "NA",
        "pred_rnn_layers": meta.size("pred_rnn_layers"),
        "pred_hidden": meta.size("pred_hidden"),
        **{f"cache_last_channel_dim{axis}": size for axis, size in enumerate(channel[1:], start=1)},
        **{f"cache_last_time_dim{axis}": size for axis, size in enumerate(time[1:], start=1)},
    }
    del model.metadata_props[:]
    helper.set_model_props(model, {key: str(value) for key, value in entries.items()})
    _save(model, source, target)


def _place_predictor(folder: Path, target: Path, meta: ModelMeta) -> None:
    """Write the predictor with sherpa-onnx's inputs: tokens and their number as int32. It ignores the second output."""
    from onnx import TensorProto, helper

    model, source = _load(folder, PREDICTOR)
    graph = model.graph
    states = [_dims(value, 3) for value in graph.input[1:]]
    want = [meta.size("pred_rnn_layers"), meta.size("pred_hidden")]
    if any([state[0], state[2]] != want for state in states):
        raise StepError(
            f"{source.name}: states are {states}, model_meta.json says {want[0]} layers of {want[1]}",
            "give the predictor and the model_meta of one checkpoint",
        )
    batch, tokens = _dims(graph.input[0], 2)
    inputs = [
        helper.make_tensor_value_info("targets", TensorProto.INT32, [batch, tokens]),
        helper.make_tensor_value_info("target_length", TensorProto.INT32, [batch]),
        *graph.input[1:],
    ]
    g, *next_states = graph.output
    outputs = [g, helper.make_tensor_value_info("prednet_lengths", TensorProto.INT32, [batch]), *next_states]
    nodes = [
        helper.make_node("Cast", ["targets"], ["y"], "Cast_targets", to=TensorProto.INT64),
        helper.make_node("Identity", ["target_length"], ["prednet_lengths"], "Identity_target_length"),
        *graph.node,
    ]
    made = helper.make_graph(nodes, graph.name, inputs, outputs, graph.initializer, value_info=graph.value_info)
    graph.CopyFrom(made)
    _save(model, source, target)


def _place_joint(folder: Path, target: Path, classes: int) -> None:
    model, source = _load(folder, JOINT)
    scored = _dims(model.graph.output[0], 4)[-1]
    if scored != classes:
        raise StepError(
            f"{source.name}: scores {scored} classes, the tokens and the blank are {classes}",
            "give the joint and the model_meta of one checkpoint",
        )
    _save(model, source, target)


def _load(folder: Path, names: tuple[list[str], list[str]]) -> tuple[ModelProto, Path]:
    """Load a model. Raises StepError unless its inputs and outputs have these names in this order."""
    from artifacts.graph.model_file import find_model, load_graph

    source = find_model(folder)
    model = load_graph(source)
    found = _inputs(model.graph), [value.name for value in model.graph.output]
    if found != names:
        raise StepError(
            f"{source.name}: has the inputs {', '.join(found[0])} and the outputs {', '.join(found[1])};"
            f" needs {', '.join(names[0])} and {', '.join(names[1])}",
            "give the artifact that the step's input is named for",
        )
    return model, source


def _inputs(graph: GraphProto) -> list[str]:
    weights = {tensor.name for tensor in graph.initializer}
    return [value.name for value in graph.input if value.name not in weights]


def _dims(value: ValueInfoProto, axes: int) -> list[Any]:
    """Return the dimensions of a value, numbers and names. Raises StepError for another number of axes."""
    dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if len(dims) != axes:
        raise StepError(f"'{value.name}': has the shape {dims}, needs {axes} axes", "export the model again")
    return dims


def _save(model: ModelProto, source: Path, target: Path) -> None:
    """Write the model, with its weights in the model file or in a data file, as in the source."""
    from artifacts.graph.model_file import check_model, save_graph
    from artifacts.graph.tensors import is_external, iter_tensors

    in_two_files = any(is_external(tensor) for tensor in iter_tensors(model))
    save_graph(model, target, source_folder=source.parent, external=in_two_files)
    check_model(target)
