"""Give a model outlier channels, as large encoders have them, without changing what it computes.

Quantisers that lose words on large encoders lose none on a small one, which has no outlier channels: nothing shows that
they are wrong. So a few channels of the LayerNormalizations are made louder by a power of two (gamma and beta times
2^n), and the rows of the weights that read them softer (times 2^-n). A power of two moves the exponent alone: each
product, and so each sum, is the same number, and the model's outputs stay the same bit for bit.

What it resembles:

- Outliers are about 100 times as large as most activations, and stay in the same channels for all tokens: Xiao et al.
  2022, "SmoothQuant" (arXiv 2211.10438). So the gain is 2^7 = 128.
- They are few, and in the same channels of all layers: Dettmers et al. 2022, "LLM.int8()" (arXiv 2208.07339). So it is
  one channel of the embedded checkpoint's 96, the same for all LayerNormalizations.
- They come from gamma and beta: Kovaleva et al. 2021, "BERT Busters" (arXiv 2105.06990); Wei et al. 2022, "Outlier
  Suppression" (arXiv 2209.13325). So the gain goes there.
- Dynamic int8 fails on them, in speech the more the longer the recording is, since one scale, set by the loudest
  number, holds for all frames: k2-fsa/icefall#995 (a Conformer's WER rises from 2.64 to 4.81 %, that of one reworked to
  have none from 2.04 to 2.08 %).

What it does not: the weights of a real outlier channel are as large as any other's. Here they are as soft as the
channel is loud, so that one scale for a whole weight loses the channel, too, and SmoothQuant, whose scale for the
channel has the gain as a factor whatever its alpha, can take back all of it.
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
    from artifacts.graph.tensor_reader import TensorReader

    Gain = NDArray[np.float32]

TOOLS = ("numpy", "onnx", "onnxruntime", "protobuf")


class Params(StepParams):
    """The defaults are what the embedded checkpoint shows most with: all of its channels were tried."""

    channels: tuple[Annotated[int, Field(ge=0)], ...] = Field((45,), min_length=1)
    """The channels that become outliers, counted from 0."""
    log2_gain: int = Field(7, ge=1, le=16)
    """How much louder they become: 2 to this power."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the model to `out` under its name, with external data if it has them now, and run it once.

    LayerNormalizations that something else reads than MatMuls by constant weights (a convolution, say) are left.
    Metrics: channels and their gain, LayerNormalizations changed and left, weights, and rows of them, made softer.
    Raises StepError for a model that cannot be read, is not fp32 or is quantised already, in which no
    LayerNormalization is to change or one has no such channel, or whose numbers are not finite, or too large or too
    small to be scaled exactly.
    """
    import numpy as np

    from artifacts.graph.model_file import check_model, find_model, load_graph, model_bytes
    from artifacts.graph.quantization.fold_scales import ScaledValue, fold_scales
    from artifacts.graph.quantization.matrix_content import write_replaced
    from artifacts.graph.quantization.quantizer_input import check_float_model
    from artifacts.graph.quantization.weighted_norms import weighted_norms
    from artifacts.graph.tensor_reader import TensorReader
    from artifacts.graph.trial_run import trial_run
    from artifacts.runtime.sessions import open_session

    source = find_model(model)
    target = out / source.name
    graph = load_graph(source)
    check_float_model(graph, source.name)
    norms = weighted_norms(graph)
    left = sum(node.op_type == "LayerNormalization" for node in graph.graph.node) - len(norms)
    if not norms:
        raise StepError(
            f"{source.name}: 0 LayerNormalizations changed, {left} left: MatMuls by constant weights alone read none",
            "give the fp32 encoder, exported with opset 17 or later",
        )
    gains = [_gain(norm, params) for norm in norms]
    with TensorReader(source) as reader:
        for norm, gain in zip(norms, gains, strict=True):
            _check_exact(norm, gain, reader)
    # A value is divided by what is to make it louder.
    scaled = [
        ScaledValue(norm.value, [matmul.node for matmul in norm.readers], np.reciprocal(gain))
        for norm, gain in zip(norms, gains, strict=True)
    ]
    folded = fold_scales(graph, scaled, source.parent)
    write_replaced(graph, source.parent, folded.contents, target)
    check_model(target)
    trial_run(open_session(target, threads=1), target.name, model_bytes(out))
    weights = sum(len(norm.readers) for norm in norms)
    return {
        "channels": len(set(params.channels)),
        "gain": 2**params.log2_gain,
        "layer_norms": len(norms),
        "layer_norms_left": left,
        "weights": weights,
        "rows": weights * len(set(params.channels)),
    }


def _gain(norm: WeightedNorm, params: Params) -> Gain:
    """What to multiply each channel by. Raises StepError for a channel that there is not."""
    import numpy as np

    gain = np.ones(norm.channels, np.float32)
    for channel in params.channels:
        if channel >= norm.channels:
            raise StepError(
                f"node '{norm.node.name}': has the channels 0 to {norm.channels - 1}, not {channel}",
                "name channels that every LayerNormalization has",
            )
        gain[channel] = 2**params.log2_gain
    return gain


def _check_exact(norm: WeightedNorm, gain: Gain, reader: TensorReader) -> None:
    """Check that scaling rounds nothing. Raises StepError that names the tensor."""
    import numpy as np

    louder, softer = gain[gain > 1], np.reciprocal(gain[gain > 1, np.newaxis])
    factors = [(tensor, louder) for tensor in norm.affine] + [(matmul.weight, softer) for matmul in norm.readers]
    for tensor, factor in factors:
        numbers = reader.array(tensor)[gain > 1]
        if not np.isfinite(numbers).all():
            raise StepError(f"'{tensor.name}': holds NaN or infinity", "train or export the checkpoint again")
        with np.errstate(over="ignore", under="ignore"):
            exact = np.array_equal(numbers * factor / factor, numbers)
        if not exact:
            raise StepError(f"'{tensor.name}': float32 cannot hold it scaled by the gain", "take a smaller log2_gain")
