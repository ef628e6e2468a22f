"""Spread a model's weights over files that each fit a byte budget.

A browser cannot hold a buffer of 2^31 bytes. So a runtime there loads the weights of a large encoder from several
files, each under the name that the model refers to. Tensors are moved whole and unchanged: the outputs of a sharded
model are bit for bit those of the model. The kernel copies their bytes, in the time of `cp`.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("onnx", "protobuf")
HEADLINE = ("shards", "largest_shard_bytes")

LARGEST_BUFFER_BYTES = 2**31 - 1


class Params(StepParams):
    """The size of a shard."""

    max_shard_bytes: int = Field(default=1_500_000_000, gt=0, lt=2**31)
    """The most bytes of a shard; a larger tensor has a shard of its own. The default leaves a browser some memory."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write `<name>.onnx` and `<name>.onnx.data.000`, `.001`, ... to `out`.

    Tensors fill the shards in the model's order: initializers, Constants and tensors in subgraphs of If, Loop and Scan.
    Tensors below 1024 bytes are inline, and so are lists of integers, which shape inference reads. A tensor larger than
    `max_shard_bytes` has a shard of its own.

    Raises StepError for a model that cannot be read, a tensor of 2^31 bytes or more, or if there is nothing to shard.
    """
    from artifacts.graph.model_file import find_model, load_graph
    from artifacts.graph.tensor_writer import stored_tensors, write_data_files, write_protobuf

    path = find_model(model)
    graph = load_graph(path)
    tensors = stored_tensors(graph, path.parent)
    for located, content in tensors:
        if content.nbytes > LARGEST_BUFFER_BYTES:
            raise StepError(
                f"{path.name}: {located.label} has {content.nbytes} bytes, no shard may exceed {LARGEST_BUFFER_BYTES}",
                "split the tensor in the graph, or shard a model of a smaller dtype",
            )
    shards = write_data_files(tensors, out, lambda index: f"{path.name}.data.{index:03d}", params.max_shard_bytes)
    if not shards:
        raise StepError(f"{path.name}: 0 tensors of 1024 bytes or more", "leave a model this small in one file")
    write_protobuf(graph, out / path.name)
    return {
        "shards": len(shards),
        "tensors": sum(shard.tensors for shard in shards),
        "bytes": sum(shard.nbytes for shard in shards),
        "largest_shard_bytes": max(shard.nbytes for shard in shards),
    }
