"""Give a model outlier channels as large encoders have them, without a change of its outputs.

Quantisers that lose words on large encoders lose none on a small one, which has no outlier channels: a test on it shows
nothing. So the step multiplies a few channels of the LayerNormalizations by a power of two (gamma and beta times 2^n).
It divides the rows of the weights that consume them by the same number (times 2^-n). A power of two changes the
exponent alone. Each product, and so each sum, is the same number, and the model's outputs stay the same bit for bit.

The outliers resemble those of large models:

- Outliers are about 100 times as large as most activations, and stay in the same channels for all tokens: Xiao et al.
  2022, "SmoothQuant" (arXiv 2211.10438). So the gain is 2^7 = 128.
- They are few, and in the same channels of all layers: Dettmers et al. 2022, "LLM.int8()" (arXiv 2208.07339). So it is
  one channel of the embedded checkpoint's 96, the same for all LayerNormalizations.
- They come from gamma and beta: Kovaleva et al. 2021, "BERT Busters" (arXiv 2105.06990); Wei et al. 2022, "Outlier
  Suppression" (arXiv 2209.13325). So the gain is applied there.
- Dynamic int8 fails on them, in speech the more the longer the recording is, because one scale, set by the largest
  number, is used for all frames: k2-fsa/icefall#995 (a Conformer's WER rises from 2.64 to 4.81 %, that of a Conformer
  without outliers from 2.04 to 2.08 %).

They differ in one way. The weights of a real outlier channel are as large as any other's. Here they are as small as the
channel is large. So one scale for a whole weight loses the channel too, and SmoothQuant can undo all of it: its scale
for the channel has the gain as a factor, whatever its alpha.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from artifacts.graph.quantization.weighted_norms import WeightedNorm
    from artifacts.graph.tensor_content import TensorReader

    Gain = NDArray[np.float32]

TOOLS = ("numpy", "onnx", "onnxruntime", "protobuf")
HEADLINE = ("channels", "gain")


class Params(StepParams):
    """The defaults have the largest effect on the embedded checkpoint: all of its channels were tried."""

    channels: tuple[Annotated[int, Field(ge=0)], ...] = Field((45,), min_length=1)
    """The channels that become outliers, counted from 0."""
    log2_gain: int = Field(7, ge=1, le=16)
    """They are multiplied by 2 to this power."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the model to `out` under its name, with external data if it has them now, and run it once.

    LayerNormalizations with other consumers than MatMuls by constant weights (a convolution, say) are left.
    Metrics: channels and their gain, LayerNormalizations changed and left, weights and their rows that were divided.
    Raises StepError as `open_float_model` does, and for a model without a LayerNormalization to change or without such
    a channel. Also for numbers that are not finite, or that are too large or too small to be scaled exactly.
    """
    import numpy as np

    from artifacts.graph.quantization.divide_values import ScaledValue, divide_values
    from artifacts.graph.quantization.float_model import open_float_model
    from artifacts.graph.quantization.matrix_content import write_replaced
    from artifacts.graph.quantization.weighted_norms import weighted_norms
    from artifacts.graph.smoke_run import check_and_run
    from artifacts.graph.tensor_content import TensorReader

    source, graph = open_float_model(model)
    norms = weighted_norms(graph)
    left = sum(node.op_type == "LayerNormalization" for node in graph.graph.node) - len(norms)
    if not norms:
        raise StepError(
            f"{source.name}: 0 LayerNormalizations changed, {left} left: none has only MatMuls by constant weights as "
            "consumers",
            "give the fp32 encoder, exported with opset 17 or later",
        )
    gains = [_gain(norm, params) for norm in norms]
    with TensorReader(source) as reader:
        for norm, gain in zip(norms, gains, strict=True):
            _check_exact(norm, gain, reader)
    # Division by 1 / gain multiplies the value.
    scaled = [
        ScaledValue(norm.value, [matmul.node for matmul in norm.consumers], np.reciprocal(gain))
        for norm, gain in zip(norms, gains, strict=True)
    ]
    divided = divide_values(graph, scaled, source.parent)
    write_replaced(graph, source.parent, divided.contents, out / source.name)
    smoke = check_and_run(out / source.name, source)
    weights = sum(len(norm.consumers) for norm in norms)
    return {
        "channels": len(set(params.channels)),
        "gain": 2**params.log2_gain,
        "layer_norms": len(norms),
        "layer_norms_left": left,
        "weights": weights,
        "rows": weights * len(set(params.channels)),
        **smoke,
    }


def _gain(norm: WeightedNorm, params: Params) -> Gain:
    """Return the factor of each channel. Raises StepError for a channel that the LayerNormalization does not have."""
    import numpy as np

    gain = np.ones(norm.channels, np.float32)
    for channel in params.channels:
        if channel >= norm.channels:
            raise StepError(
                f"node '{norm.node.name}': has channels 0 to {norm.channels - 1}, not {channel}",
                "name channels that every LayerNormalization has",
            )
        gain[channel] = 2**params.log2_gain
    return gain


def _check_exact(norm: WeightedNorm, gain: Gain, reader: TensorReader) -> None:
    """Check that scaling rounds nothing. Raises StepError that names the tensor."""
    import numpy as np

    gains, inverse = gain[gain > 1], np.reciprocal(gain[gain > 1, np.newaxis])
    factors = [(tensor, gains) for tensor in norm.affine] + [(matmul.weight, inverse) for matmul in norm.consumers]
    for tensor, factor in factors:
        numbers = reader.array(tensor)[gain > 1]
        if not np.isfinite(numbers).all():
            raise StepError(f"'{tensor.name}': has NaN or infinity", "train or export the checkpoint again")
        with np.errstate(over="ignore", under="ignore"):
            exact = np.array_equal(numbers * factor / factor, numbers)
        if not exact:
            raise StepError(
                f"'{tensor.name}': float32 cannot represent it scaled by the gain", "use a smaller log2_gain"
            )
