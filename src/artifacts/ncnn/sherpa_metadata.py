"""`SherpaMetaData`: the layer in an encoder's `.param` file by which sherpa-ncnn knows the model.

It is in the third line, before the network's own layers. It is called `sherpa_meta_data1`, has no blobs, and has these
parameters for an LSTM transducer: 0 the kind of model (3; 1 is ConvEmformer, 2 Zipformer), 1 the number of LSTM layers,
2 the encoder's dimension, 3 the LSTM's hidden size. sherpa-ncnn makes the first states from them and checks nothing: a
wrong number aborts its process, and a wrong hidden size may change the text. So the numbers come from the layers
themselves, and metadata in a file must agree with them. Documented in sherpa-ncnn's and icefall's export guides.
"""

from __future__ import annotations

from typing import NamedTuple

from artifacts.errors import StepError
from artifacts.ncnn.param_file import METADATA_TYPE, Layer, ParamFile

METADATA_NAME = "sherpa_meta_data1"
LSTM_TRANSDUCER = 3

# Features `[T, 80]`, their length, and the states h `[layers, encoder_dim]` and c `[layers, hidden size]`.
INPUTS = ("in0", "in1", "in2", "in3")
# Frames `[T', encoder_dim]` and the next states; the length between them has no consumer.
OUTPUTS = ("out0", "out2", "out3")

_NO_TYPE = (
    "sherpa-ncnn has a type for ConvEmformer, Zipformer and LSTM transducers only; run any other model in ncnn itself"
)


class Metadata(NamedTuple):
    """Parameters of the layer, in the order of their ids."""

    model_type: int
    num_encoder_layers: int
    encoder_dim: int
    rnn_hidden_size: int


def derive_metadata(file: ParamFile, location: str) -> Metadata:
    """Return the metadata of an LSTM transducer's encoder, from its layers.

    Raises StepError for another network: without an LSTM, with LSTMs of different sizes or directions, or without the
    inputs and outputs that sherpa-ncnn knows by name.
    """
    lstms = [layer for layer in file.layers if layer.type == "LSTM"]
    if not lstms:
        raise StepError(f"{location}: contains no LSTM layer, so it is not an LSTM transducer's encoder", _NO_TYPE)
    sizes = {_sizes(layer) for layer in lstms}
    if len(sizes) > 1 or any(layer.integer(2) for layer in lstms):
        raise StepError(
            f"{location}: its {len(lstms)} LSTM layers are not all of one size and forward in time", _NO_TYPE
        )
    inputs = {name for layer in file.layers if layer.type == "Input" for name in layer.outputs}
    missing = [name for name in OUTPUTS if name not in file.blobs]
    if inputs != set(INPUTS) or missing:
        raise StepError(
            f"{location}: has the inputs {', '.join(sorted(inputs))}"
            f"{' and no ' + ', '.join(missing) if missing else ''}, so it is not an LSTM transducer's encoder",
            _NO_TYPE,
        )
    return Metadata(LSTM_TRANSDUCER, len(lstms), *sizes.pop())


def add_metadata(file: ParamFile, location: str) -> ParamFile:
    """Return the network with the layer in front. Raises StepError if it has one, and as `derive_metadata` does."""
    if any(layer.type == METADATA_TYPE for layer in file.layers):
        raise StepError(f"{location}: contains {METADATA_TYPE} already", "give the network as it was converted")
    layer = Layer(METADATA_TYPE, METADATA_NAME, (), (), dict(enumerate(derive_metadata(file, location))))
    return ParamFile((layer, *file.layers))


def read_metadata(file: ParamFile, location: str) -> Metadata:
    """Read the layer and compare it with the network. Raises StepError, with the key, where they differ."""
    fix = "tag the encoder again with tag_sherpa_ncnn, which takes the numbers from the network"
    found = [layer for layer in file.layers if layer.type == METADATA_TYPE]
    if len(found) != 1 or found[0] is not file.layers[0] or found[0].name != METADATA_NAME:
        raise StepError(f"{location}: its third line is not one {METADATA_TYPE} called '{METADATA_NAME}'", fix)
    expected = derive_metadata(file, location)
    unknown = set(found[0].params) - set(range(len(expected)))
    if unknown:
        raise StepError(f"{location}: {METADATA_TYPE}: key {min(unknown)} means nothing to an LSTM transducer", fix)
    for key, (name, want) in enumerate(zip(Metadata._fields, expected, strict=True)):
        value = found[0].params.get(key)
        if value != want:
            raise StepError(f"{location}: {METADATA_TYPE}: key {key} ({name}) is {value}, the network has {want}", fix)
    return expected


def _sizes(layer: Layer) -> tuple[int, int]:
    """Return encoder dimension and hidden size. Without a projection they are equal, and pnnx writes the former."""
    return layer.integer(0), layer.integer(3, layer.integer(0))
