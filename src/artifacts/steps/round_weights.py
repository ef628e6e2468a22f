"""Round a model's weights to few values each, still float32, so that the file compresses to a third or less.

The file has the bytes that it had, any runtime computes with it as fast and as exactly as before, and gzip, brotli and
zstd find 256 values where there were millions. For a download that is compressed on its way (web servers, app bundles,
packages). `quantize_weights` gives the same numbers in a quarter of the bytes, and a little less under compression too,
but asks more of the runtime. As onnx_shrink_ray does, whose README has figures: Moonshine base to 155 of 515 MB under
gzip, WER 3.28 instead of 3.29 %, with 256 levels.

The levels are evenly spaced from a tensor's least number to its largest, and 0 is always one of them: zeros stay zeros.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("numpy", "onnx", "protobuf")


class Params(StepParams):
    """The defaults are those of onnx_shrink_ray."""

    levels: int = Field(default=256, ge=4, le=65536)
    """How many values a tensor may have. More are more exact, and compress less."""
    min_elements: int = Field(default=16384, ge=1)
    """Tensors of more elements than this are rounded."""
    nodes_to_exclude: tuple[str, ...] = ()
    """Names of nodes whose weights stay as they are."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the model to `out` under its name, with external data if it has them now: weights are streamed then.

    The result is checked, and run once if it is one file.

    Metrics: tensors rounded, the furthest that a number of theirs may have moved, bytes before and after.
    Raises StepError for a model that cannot be read, is not fp32 or is quantised already, for a name in
    `nodes_to_exclude` that no node has, for a weight that holds NaN or infinity or has no levels in float32, or if
    rounding changed no number or the result does not run.
    """
    from artifacts.graph.content import stored_content
    from artifacts.graph.model_file import check_model, find_model, load_graph, model_bytes
    from artifacts.graph.quantization.large_weights import large_weights
    from artifacts.graph.quantization.levelled_content import RoundedContent, largest_error
    from artifacts.graph.quantization.quantizer_input import check_excluded, check_float_model
    from artifacts.graph.quantization.replaced_weights import replace_contents
    from artifacts.graph.quantization.weight_blocks import shape_by_channel
    from artifacts.graph.tensor_writer import stored_tensors, write_model
    from artifacts.graph.tensors import is_external

    source = find_model(model)
    target = out / source.name
    graph = load_graph(source)
    check_float_model(graph, source.name)
    check_excluded(params.nodes_to_exclude, graph, source.name)
    try:
        tensors = [it.tensor for it in large_weights(graph, params.min_elements, params.nodes_to_exclude)]
        contents = [
            RoundedContent(it.name, stored_content(it, source.parent), shape_by_channel(it.dims, None), params.levels)
            for it in tensors
        ]
        stored = stored_tensors(graph, source.parent)
        external = any(is_external(place.tensor) for place, _ in stored)
        write_model(
            graph, replace_contents(stored, list(zip(tensors, contents, strict=True))), target, external=external
        )
    except StepError as error:
        raise StepError(f"{source.name}: {error.fact}", error.fix) from None
    moved = sum(content.moved for content in contents)
    if not moved:
        raise StepError(
            f"{source.name}: 0 numbers changed: its weights have no other values than these {params.levels} levels",
            "name fewer levels, or leave the model as it is",
        )
    check_model(target)
    if not external:
        _run_once(target)
    sizes = {"bytes_before": model_bytes(model), "bytes_after": model_bytes(out)}
    return {"tensors": moved, "largest_error": largest_error(contents), **sizes}


def _run_once(path: Path) -> None:
    from artifacts.graph.trial_run import trial_run
    from artifacts.runtime.sessions import open_session

    trial_run(open_session(path, threads=1), path.name, path.stat().st_size)
