"""Lay out an offline transducer in one flat folder as onnx-asr reads it.

onnx-asr finds models by name, and so do the browser and Rust applications that read its layout. The names are
`encoder-model.onnx` and `decoder_joint-model.onnx`. Another precision has `?fp16` or `?int8` before `.onnx`, where `?`
is any one character, and only one file may match. A large model has one `<name>.onnx.data`. The other files are
`vocab.txt`, `config.json` and the preprocessor `nemo128.onnx`. Graph values have fixed names too: the encoder's frames
are called `outputs`. No file is a link, and `sha256sum -c SHA256SUMS` checks them all.

The weights must have the precision of the name. A decoder may have more bits, an encoder may not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onnx import GraphProto, ModelProto, ValueInfoProto

    from artifacts.speech.decoding import DecodingSettings

TOOLS = ("onnx", "protobuf")
HEADLINE = ("files", "bytes")

MAX_FEATURES = 4096

FOREIGN_NAMES = {"encoder_output": "outputs"}


class Value(NamedTuple):
    """Required dtype and shape of a value. A dimension is a number, `number` (any static one) or `?` (anything)."""

    dtype: str
    shape: tuple[int | str, ...]


class Contract(NamedTuple):
    """The inputs that onnx-asr gives a graph, and the outputs that it needs; a graph may have other outputs."""

    inputs: dict[str, Value]
    outputs: dict[str, Value]


class Params(StepParams):
    """No params: the layout is onnx-asr's."""


def run(
    out: Path,
    params: Params,
    *,
    encoder_fp32: Path,
    decoder_joint_fp32: Path,
    tokens: Path,
    model_meta: Path,
    preprocessor: Path,
    encoder_fp16: Path | None = None,
    decoder_joint_fp16: Path | None = None,
    encoder_int8: Path | None = None,
    decoder_joint_int8: Path | None = None,
) -> dict[str, float | int | str]:
    """Write each precision's pair of models under onnx-asr's names, with the other files that it reads.

    Metrics: files and bytes. Raises StepError for a precision with only one model of the pair, and for a model of
    another precision. Raises it for a model, vocabulary or configuration that onnx-asr does not read.
    """
    from artifacts.files.checksums import write_checksums
    from artifacts.files.copy import copy_file
    from artifacts.graph.model_file import find_model
    from artifacts.graph.precision import PRECISIONS
    from artifacts.speech.decoding import read_decoding, read_vocabulary

    pairs = {
        "": ("fp32", encoder_fp32, decoder_joint_fp32),
        ".fp16": ("fp16", encoder_fp16, decoder_joint_fp16),
        ".int8": ("int8", encoder_int8, decoder_joint_int8),
    }
    decoding = read_decoding(model_meta / "model_meta.json")
    read_vocabulary(tokens / "vocab.txt", decoding)
    features = _read_features_size(model_meta / "config.json")

    for suffix, (precision, encoder, decoder_joint) in pairs.items():
        if encoder is None and decoder_joint is None:
            continue
        if encoder is None or decoder_joint is None:
            given, missing = ("encoder", "decoder_joint") if encoder else ("decoder_joint", "encoder")
            raise StepError(
                f"{given}_{precision} is given without {missing}_{precision}",
                "onnx-asr loads both with one suffix: give both, or neither",
            )
        # onnx-asr loads both with one suffix. A decoder with more bits is as good; an encoder with more is a mistake.
        encoders, decoders = (precision,), PRECISIONS[PRECISIONS.index(precision) :]
        _place(find_model(encoder), out / f"encoder-model{suffix}.onnx", _encoder_contract(features), encoders)
        target = out / f"decoder_joint-model{suffix}.onnx"
        _place(find_model(decoder_joint), target, _decoder_contract(decoding), decoders)
    _place(find_model(preprocessor), out / f"nemo{features}.onnx", _preprocessor_contract(features), ("fp32",))
    copy_file(tokens / "vocab.txt", out / "vocab.txt")
    copy_file(model_meta / "config.json", out / "config.json")
    return {**write_checksums(out)}


def _read_features_size(config: Path) -> int:
    """Return the mel features in a `config.json` of a TDT model. Without the number onnx-asr would assume 80."""
    from artifacts.untrusted.read_input import read_json_object

    values = read_json_object(config, "write it again")
    wanted = {"model_type": str, "features_size": int, "subsampling_factor": int}
    for key, kind in wanted.items():
        if not isinstance(values.get(key), kind) or values[key] is True:
            raise StepError(f"config.json: {key}: expected {kind.__name__}, got {values.get(key)!r}", "write it again")
    if values["model_type"] != "nemo-conformer-tdt":
        raise StepError(
            f"config.json: model_type: expected 'nemo-conformer-tdt', got '{values['model_type']}'", "write it again"
        )
    if not 1 <= values["features_size"] <= MAX_FEATURES:
        expected = f"a number above 0, at most {MAX_FEATURES}"
        raise StepError(
            f"config.json: features_size: expected {expected}, got {values['features_size']}", "write it again"
        )
    return int(values["features_size"])


def _encoder_contract(features: int) -> Contract:
    return Contract(
        {"audio_signal": Value("FLOAT", ("?", features, "?")), "length": Value("INT64", ("?",))},
        {"outputs": Value("FLOAT", ("?", "?", "?")), "encoded_lengths": Value("INT64", ("?",))},
    )


def _preprocessor_contract(features: int) -> Contract:
    return Contract(
        {"waveforms": Value("FLOAT", ("?", "?")), "waveforms_lens": Value("INT64", ("?",))},
        {"features": Value("FLOAT", ("?", features, "?")), "features_lens": Value("INT64", ("?",))},
    )


def _decoder_contract(decoding: DecodingSettings) -> Contract:
    state = Value("FLOAT", ("number", "?", "number"))  # onnx-asr makes the first states from these two numbers
    scores = decoding.blank_id + 1 + len(decoding.durations)
    return Contract(
        {
            "encoder_outputs": Value("FLOAT", ("?", "?", "?")),
            "targets": Value("INT32", ("?", "?")),
            "target_length": Value("INT32", ("?",)),
            "input_states_1": state,
            "input_states_2": state,
        },
        {
            "outputs": Value("FLOAT", ("?", "?", "?", scores)),
            "output_states_1": Value("FLOAT", ("?", "?", "?")),
            "output_states_2": Value("FLOAT", ("?", "?", "?")),
        },
    )


def _rename_value(model: ModelProto, old: str, new: str, location: str) -> None:
    """Rename a value in nodes and declarations, also in the subgraphs of If, Loop and Scan."""
    for graph in _graphs(model.graph):
        declared = [*graph.input, *graph.output, *graph.value_info, *graph.initializer]
        names = {name for node in graph.node for name in (*node.input, *node.output)} | {each.name for each in declared}
        if new in names:
            raise StepError(
                f"{location}: a value in the graph is called '{new}' already", f"export it without the name '{new}'"
            )
        for each in declared:
            if each.name == old:
                each.name = new
        for node in graph.node:
            for ports in (node.input, node.output):
                ports[:] = [new if name == old else name for name in ports]


def _graphs(graph: GraphProto) -> list[GraphProto]:
    subgraphs = [
        subgraph
        for node in graph.node
        for attribute in node.attribute
        for subgraph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
    ]
    return [graph, *(inner for subgraph in subgraphs for inner in _graphs(subgraph))]


def _place(source: Path, target: Path, contract: Contract, precisions: Sequence[str]) -> None:
    """Write a model under its new name, with onnx-asr's names for its values; weights are copied, not read."""
    from artifacts.graph.model_file import load_graph, save_graph
    from artifacts.graph.precision import weight_precision
    from artifacts.graph.tensors import is_external, iter_tensors

    model = load_graph(source)
    if (found := weight_precision(model)) not in precisions:
        raise StepError(
            f"{target.name}: its weights are {found}, where {' or '.join(precisions)} belongs",
            "give the model whose precision is the input's name",
        )
    for ours, theirs in FOREIGN_NAMES.items():
        if ours in {value.name for value in model.graph.output}:
            _rename_value(model, ours, theirs, target.name)
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    if unknown := {value.name for value in inputs} - set(contract.inputs):
        raise StepError(f"{target.name}: onnx-asr gives no input '{min(unknown)}'", "give a model without this input")
    _check_values(inputs, contract.inputs, f"{target.name}: input")
    _check_values(model.graph.output, contract.outputs, f"{target.name}: output")
    in_two_files = any(is_external(tensor) for tensor in iter_tensors(model))
    save_graph(model, target, source_folder=source.parent, external=in_two_files)


def _check_values(values: Iterable[ValueInfoProto], wanted: dict[str, Value], location: str) -> None:
    from onnx import TensorProto

    found = {value.name: value.type.tensor_type for value in values}
    for name, want in wanted.items():
        if name not in found:
            raise StepError(
                f"{location} '{name}' is missing among {', '.join(found)}", "give the model that is named here"
            )
        dtype = TensorProto.DataType.Name(found[name].elem_type)
        shape = [dim.dim_value if dim.HasField("dim_value") else "?" for dim in found[name].shape.dim]
        if dtype != want.dtype or len(shape) != len(want.shape) or not all(map(_fits, shape, want.shape)):
            raise StepError(
                f"{location} '{name}' is {dtype} {_show(shape)}, onnx-asr needs {want.dtype} {_show(want.shape)}",
                "export the model with these types and static dimensions",
            )


def _fits(have: int | str, want: int | str) -> bool:
    """Return whether a dimension is as wanted: `?` is anything, `number` any number that the graph declares."""
    return want == "?" or have == want or (want == "number" and isinstance(have, int))


def _show(shape: Iterable[int | str]) -> str:
    return f"[{', '.join(str(dim) for dim in shape)}]"
