"""Weights of each type of ncnn layer, in the order of the `.bin` file.

A `.bin` file does not describe its contents: the layers of the `.param` file read it, one after another. One layer with
wrong or unknown fields would shift all that follow. So a type that is not listed here is an error. The fields, and the
parameters that decide them, are those of ncnn 1.0.20261020's layers, as its "operators" page lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from artifacts.errors import StepError
from artifacts.ncnn.param_file import Layer

# The parameter that says whether a layer's weights are int8, for the types that may be int8 and are supported here.
INT8_TERM = {
    "Convolution": 8,
    "ConvolutionDepthWise": 8,
    "InnerProduct": 8,
    "LSTM": 8,
    "Gemm": 18,
    "Embed": 18,
}

# SherpaMetaData is not ncnn's: it is sherpa-ncnn's layer of numbers that describe an encoder.
WITHOUT_WEIGHTS = frozenset(
    """
    AbsVal ArgMax BinaryOp BNLL Cast CELU Clip Concat CopyTo Crop CumulativeSum DeepCopy Diag Dropout Einsum Eltwise ELU
    Erf Exp ExpandDims Flatten Flip Fold GELU GLU GridSample HardSigmoid HardSwish Input Interp Log LRN MatMul Mish MVN
    Noop Packing Permute PixelShuffle Pooling Pooling1D Pooling3D Power Reduction ReLU Reorg Reshape RotaryEmbed SDPA
    SELU SherpaMetaData Shrink ShuffleChannel Sigmoid Slice Softmax Softplus Split SPP Squeeze StatisticsPooling Swish
    TanH Threshold Tile UnaryOp Unfold
    """.split()  # noqa: SIM905 - sixty quoted names would hide the list
)

_FIX = "convert the model again; or add the layer to artifacts.ncnn.layer_fields"


@dataclass(frozen=True)
class Field:
    """One array of weights of a layer."""

    name: str
    shape: tuple[int, ...]
    tagged: bool
    """Whether a tag before it says float32, float16 or int8. Without a tag it is float32."""

    @property
    def count(self) -> int:
        """Return the number of elements."""
        return prod(self.shape)


def layer_fields(layer: Layer) -> tuple[Field, ...]:
    """Return the weights that a layer reads from the `.bin` file, in order; matrices are `[rows, columns]`.

    Raises StepError for an unknown type, and for sizes that contradict each other.
    """
    location = f"layer '{layer.name}' ({layer.type})"
    if layer.type in WITHOUT_WEIGHTS:
        return ()
    fields_of = _FIELDS.get(layer.type)
    if fields_of is None:
        raise StepError(f"{location}: unknown layer type, which may have weights", _FIX)
    fields = tuple(fields_of(layer))
    for field in fields:
        if min(field.shape) < 1:
            raise StepError(f"{location}: {field.name}: would have the shape {list(field.shape)}", _FIX)
    return fields


def is_int8(layer: Layer) -> bool:
    """Return whether the layer computes with int8 weights."""
    return layer.type in INT8_TERM and layer.integer(INT8_TERM[layer.type]) != 0


def _rows(layer: Layer, size: int, rows: int) -> tuple[int, int]:
    """Return the shape of `size` numbers in `rows` rows."""
    if rows < 1 or size < 1 or size % rows:
        raise StepError(f"layer '{layer.name}' ({layer.type}): {size} weights do not make {rows} rows", _FIX)
    return rows, size // rows


def _convolution(layer: Layer) -> list[Field]:
    """Params: 0 outputs, 5 bias, 6 weights, 7 groups, 8 int8, 19 (28 where it is transposed) weights are an input."""
    transposed = layer.type.startswith("Deconvolution")
    if layer.integer(28 if transposed else 19):
        return []
    outputs = layer.integer(0)
    fields = [Field("weight", _rows(layer, layer.integer(6), outputs), tagged=True)]
    if layer.integer(5):
        fields.append(Field("bias", (outputs,), tagged=False))
    term = layer.integer(8)
    if term and layer.type in INT8_TERM:
        scales = outputs
        if layer.type == "ConvolutionDepthWise":
            scales = layer.integer(7, 1) if term % 100 == 1 else 1
        fields += [Field("weight_scales", (scales,), tagged=False), Field("bottom_scale", (1,), tagged=False)]
        if term > 100:  # its output is the next convolution's int8 input
            fields.append(Field("top_scale", (1,), tagged=False))
    return fields


def _inner_product(layer: Layer) -> list[Field]:
    """Params: 0 outputs, 1 bias, 2 weights, 8 int8."""
    outputs = layer.integer(0)
    fields = [Field("weight", _rows(layer, layer.integer(2), outputs), tagged=True)]
    if layer.integer(1):
        fields.append(Field("bias", (outputs,), tagged=False))
    if layer.integer(8):
        fields += [Field("weight_scales", (outputs,), tagged=False), Field("bottom_scale", (1,), tagged=False)]
    return fields


def _gemm(layer: Layer) -> list[Field]:
    """Params: 2, 3 A and B are transposed; 4 to 6 A, B and C are constant; 7 to 9 M, N and K; 10 C's shape; 18 int8."""
    m, n, k = (layer.integer(key) for key in (7, 8, 9))
    term = layer.integer(18)
    if term > 3:
        raise StepError(f"layer '{layer.name}' (Gemm): weights in blocks (18={term}) are not supported", _FIX)
    fields = []
    if layer.integer(4):
        fields.append(Field("a", (k, m) if layer.integer(2) else (m, k), tagged=True))
    if layer.integer(5):
        fields.append(Field("b", (n, k) if layer.integer(3) else (k, n), tagged=True))
    if layer.integer(6) and layer.integer(10) != -1:
        shapes = {0: (1,), 1: (m,), 2: (m, 1), 3: (m, n), 4: (n,)}
        kind = layer.integer(10)
        if kind not in shapes:
            raise StepError(f"layer '{layer.name}' (Gemm): param 10: expected -1 to 4, got {kind}", _FIX)
        fields.append(Field("c", shapes[kind], tagged=True))
    if term and layer.integer(4):
        fields.append(Field("a_scales", (m,), tagged=False))
    if term and layer.integer(5):
        fields.append(Field("b_scale", (1,), tagged=False))
    return fields


def _recurrent(layer: Layer) -> list[Field]:
    """Params: 0 outputs, 1 weights, 2 direction (2: both), 3 hidden size, 8 int8; the gates' rows are stacked."""
    gates, biases = {"LSTM": (4, 4), "GRU": (3, 4), "RNN": (1, 1)}[layer.type]
    outputs = layer.integer(0)
    hidden = layer.integer(3, outputs) if layer.type == "LSTM" else outputs
    directions = 2 if layer.integer(2) == 2 else 1
    rows = directions * gates * hidden
    fields = [
        Field("weight_xc", _rows(layer, layer.integer(1), rows), tagged=True),
        Field("bias_c", (directions * biases, hidden), tagged=True),
        Field("weight_hc", (rows, outputs), tagged=True),
    ]
    if hidden != outputs:
        fields.append(Field("weight_hr", (directions * outputs, hidden), tagged=True))
    if layer.integer(8):
        fields += [Field("weight_xc_scales", (rows,), tagged=False), Field("weight_hc_scales", (rows,), tagged=False)]
    return fields


def _embed(layer: Layer) -> list[Field]:
    """Params: 0 outputs, 1 rows, 2 bias, 3 weights, 18 int8."""
    fields = [Field("weight", _rows(layer, layer.integer(3), layer.integer(1)), tagged=True)]
    if layer.integer(2):
        fields.append(Field("bias", (layer.integer(0),), tagged=False))
    if layer.integer(18):
        fields.append(Field("weight_scale", (1,), tagged=False))
    return fields


def _memory_data(layer: Layer) -> list[Field]:
    """Params: 0, 1, 11 and 2 are width, height, depth and channels, 0 where absent; 21 is 0 if it has a tag."""
    sizes = tuple(size for size in (layer.integer(key) for key in (2, 11, 1, 0)) if size)
    return [Field("data", sizes, tagged=layer.integer(21, 1) == 0)] if sizes else []


def _padding(layer: Layer) -> list[Field]:
    """Param 6: number of channels that have a padding value of their own."""
    channels = layer.integer(6)
    return [Field("channel_values", (channels,), tagged=False)] if channels else []


def _affine(*names: str, size: int = 0, switch: int | None = None) -> Callable[[Layer], list[Field]]:
    """Arrays of the length in param `size`, if param `switch` (default 1) is not 0."""

    def fields(layer: Layer) -> list[Field]:
        if switch is not None and not layer.integer(switch, 1):
            return []
        return [Field(name, (layer.integer(size),), tagged=False) for name in names]

    return fields


_FIELDS: dict[str, Callable[[Layer], list[Field]]] = {
    **dict.fromkeys(
        (
            f"{kind}{form}"
            for kind in ("Convolution", "ConvolutionDepthWise", "Deconvolution", "DeconvolutionDepthWise")
            for form in ("", "1D")
        ),
        _convolution,
    ),
    "InnerProduct": _inner_product,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Embed": _embed,
    "MemoryData": _memory_data,
    "Padding": _padding,
    "LayerNorm": _affine("gamma", "beta", switch=2),
    "RMSNorm": _affine("gamma", switch=2),
    "GroupNorm": _affine("gamma", "beta", size=1, switch=3),
    "InstanceNorm": _affine("gamma", "beta", switch=2),
    "BatchNorm": _affine("slope", "mean", "variance", "bias"),
    "PReLU": _affine("slope"),
    "Bias": _affine("bias"),
}
