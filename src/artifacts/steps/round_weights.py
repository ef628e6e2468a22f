"""Round a model's weights to few different float32 values, so that the file compresses to a third or less.

The file has as many bytes as before, and any runtime computes with it as fast and as exactly. But gzip, brotli and zstd
find 256 values where there were millions. Use it for a download that is compressed on its way (web servers, app
bundles, packages). `quantize_weights` gives the same numbers in a quarter of the bytes, and in a little fewer when
compressed, but needs more of the runtime. onnx_shrink_ray rounds in the same way. Its README has figures: Moonshine
base to 155 of 515 MB under gzip, WER 3.28 instead of 3.29 %, with 256 levels.

The levels are evenly spaced from a tensor's smallest number to its largest, and 0 is always one of them: zeros stay
zeros.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("numpy", "onnx", "protobuf")
HEADLINE = ("tensors", "largest_error")


class Params(StepParams):
    """The defaults are those of onnx_shrink_ray."""

    levels: int = Field(default=256, ge=4, le=65536)
    """The number of values that a tensor may have. More are more exact, and compress less."""
    min_elements: int = Field(default=16384, ge=1)
    """Tensors with more elements are rounded."""
    nodes_to_exclude: tuple[str, ...] = ()
    """Names of nodes whose weights stay as they are."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the model to `out` under its name, with external data if it has them now: then weights are streamed.

    The result is checked, and run once if it is one file.

    Metrics: tensors rounded, the most that a number of the tensors may have moved, bytes before and after.
    Raises StepError as `open_float_model` does, and for a weight that has NaN or infinity or no levels in float32. Also
    if rounding changed no number, or as `check_and_run` does for the result.
    """
    from artifacts.graph.change_metrics import changed_bytes
    from artifacts.graph.model_file import check_model, errors_of
    from artifacts.graph.quantization.float_model import open_float_model
    from artifacts.graph.quantization.large_weights import large_weights, replace_contents
    from artifacts.graph.quantization.weight_grid import RoundedContent, largest_error, shape_by_channel
    from artifacts.graph.smoke_run import check_and_run
    from artifacts.graph.tensor_content import stored_content
    from artifacts.graph.tensor_writer import any_external, stored_tensors, write_model

    source, graph = open_float_model(model, params.nodes_to_exclude)
    target = out / source.name
    with errors_of(source):
        tensors = [one.tensor for one in large_weights(graph, params.min_elements, params.nodes_to_exclude)]
        contents = []
        for tensor in tensors:
            stored_now, shape = stored_content(tensor, source.parent), shape_by_channel(tensor.dims, None)
            contents.append(RoundedContent(tensor.name, stored_now, shape, params.levels))
        new = list(zip(tensors, contents, strict=True))
        stored = replace_contents(stored_tensors(graph, source.parent), new)
        external = any_external(stored)
        write_model(graph, stored, target, external=external)
    moved = sum(content.moved for content in contents)
    if not moved:
        raise StepError(
            f"{source.name}: 0 numbers changed: its weights have no other values than these {params.levels} levels",
            "use fewer levels, or leave the model as it is",
        )
    if external:
        check_model(target)
    smoke = {} if external else check_and_run(target, source)
    return {"tensors": moved, "largest_error": largest_error(contents), **changed_bytes(model, out), **smoke}
