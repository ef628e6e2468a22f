"""Export the encoder of a cache-aware streaming checkpoint: one chunk of features and the caches of the past.

The graph, float32: `audio_signal` [B, features, T], `length` [B] int64, `cache_last_channel` [L, B, C, D],
`cache_last_time` [L, B, D, K], `cache_last_channel_len` [B] int64 → `encoder_output` [B, D, T'], `encoded_lengths` [B]
int64 and the three caches for the next chunk, `_out` behind their names. Caches of zeros begin a stream.

The result is exactly that of NeMo's own streaming, the first chunk included. Empty caches mark the first chunk. For all
others the graph drops the encoder frames of the features before a chunk. NeMo's own export always drops them, and so
loses the first 0.16 s. The rows of a batch must begin their streams together: a row that joins later loses these
frames.

The graph's metadata say how to feed it, in NeMo's terms; `nemo/streaming.py` defines them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from artifacts.params import StepParams

if TYPE_CHECKING:
    from artifacts.model.network import Network
    from artifacts.nemo.streaming import StreamingSchedule

TOOLS = ("torch", "nemo_toolkit", "numpy", "onnx", "protobuf")
HEADLINE = ("encoder_output_max_abs_diff", "latency_seconds")


class Params(StepParams):
    """Sizes are NeMo's, and the checkpoint's own unless they are given."""

    opset: int = Field(17, ge=17, le=20)
    """Version of ONNX's operators: 17 is the first with LayerNormalization, 20 the last that the exporter knows."""
    layout: Literal["layer_first", "batch_first"] = "layer_first"
    """Which axis of the caches comes first; sherpa-onnx needs the batch."""
    left_context: int | None = Field(None, ge=1, le=4000)
    """Encoder frames of the past. With `right_context`, a pair that the checkpoint was trained with."""
    right_context: int | None = Field(None, ge=0, le=500)
    """Encoder frames of the future. Alone, it chooses its pair."""
    chunk_frames: int | None = Field(None, ge=1, le=8000)
    """Length of a chunk, in features."""
    shift_frames: int | None = Field(None, ge=1, le=8000)
    """Distance from a chunk to the next one, in features."""
    cache_size: int | None = Field(None, ge=1, le=4000)
    """Encoder frames of the past that attention sees."""
    cache_drop_size: int | None = Field(None, ge=0, le=1000)
    """Encoder frames at a chunk's end that do not enter the cache."""
    experimental: bool = False
    """Allow what the checkpoint was not trained for, also an offline checkpoint.

    The result is then no longer what the checkpoint gives for a whole recording.
    """


def run(out: Path, params: Params, *, checkpoint: Path) -> dict[str, float | int | str]:
    """Write `encoder-model.onnx`, above 1.5 GB with `encoder-model.onnx.data`, from the .nemo file.

    Returns the largest absolute difference of each output between ONNX Runtime and torch, and `latency_seconds`: the
    longest time from a sound to the end of its chunk. The comparison is on batches of one to three rows, at the
    beginning and in the middle of a stream.
    Raises StepError if a difference is above 1e-4, or if the checkpoint was not trained to stream, or not so.
    """
    from artifacts.nemo.checkpoint import restore

    model = restore(checkpoint, out, ["encoder"])
    # torch is imported by what follows: a checkpoint that is refused waits for neither torch nor NeMo.
    from artifacts.graph.model_file import check_model, consolidate
    from artifacts.nemo.onnx_export import compare_with_torch, exported
    from artifacts.nemo.streaming import StreamingEncoderNetwork, StreamingOverrides, set_up_streaming

    overrides = StreamingOverrides(**params.model_dump(exclude={"opset", "layout"}))
    schedule = set_up_streaming(model, overrides, checkpoint.name)
    network, path = StreamingEncoderNetwork(model, params.layout), out / "encoder-model.onnx"
    with exported(network, path, params.opset) as loose:
        _describe(loose, network, {"cache_layout": params.layout, **schedule.metadata})
        consolidate(loose, path)
    check_model(path)
    features = model.cfg.preprocessor
    latency_seconds = round(schedule.chunk_frames * features.hop_samples / features.sample_rate, 4)
    return {**compare_with_torch(path, network, _cases(schedule)), "latency_seconds": latency_seconds}


def _cases(schedule: StreamingSchedule) -> list[dict[str, int]]:
    """Return sizes of first windows, whole and cut short, and of later ones with caches full and partly filled."""
    first, later = schedule.first_chunk_frames, schedule.chunk_frames + schedule.pre_encode_frames
    least = schedule.pre_encode_frames + schedule.least_frames
    sizes = [(1, first, 0), (3, first, 0), (1, 1, 0), (2, first + 16, 0)]
    sizes += [(1, later, schedule.cache_size), (3, later, schedule.cache_size), (2, later, 5), (1, least, 14)]
    return [{"batch": batch, "frames": frames, "cached": cached} for batch, frames, cached in sizes]


def _describe(path: Path, network: Network, entries: dict[str, str]) -> None:
    """Write the metadata, and the outputs' dimensions: the exporter loses the caches' and invents names."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, entries)
    for value in model.graph.output:
        del value.type.tensor_type.shape.dim[:]
        for size in network.outputs[value.name]:
            known = {"dim_param": size} if isinstance(size, str) else {"dim_value": size}
            value.type.tensor_type.shape.dim.add(**known)
    path.write_bytes(model.SerializeToString(deterministic=True))
