"""A model in a folder: find it, load it without its weights, write it with them.

A model is one `.onnx` file. The tensors of a large one are in a second file, `<name>.onnx.data`, beside it. To change
a model takes no memory for its weights: `load_graph` reads the protobuf alone, its tensors keep their reference to the
data file, and `save_graph` copies their bytes from there.

    model = load_graph(path)                                        # external tensors stay where they are
    ...                                                             # change nodes; give a tensor new values inline
    save_graph(model, out / path.name, source_folder=path.parent)   # external ones are copied, inline ones written

`tensor_content.TensorReader(path)` gives the values of single tensors as numpy views.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import GraphProto, ModelProto, NodeProto

from artifacts.errors import StepError
from artifacts.graph.external_data import check_references, reference_of
from artifacts.graph.nodes import subgraphs
from artifacts.graph.structure import check_structure
from artifacts.graph.tensor_writer import PROTOBUF_LIMIT_BYTES, stored_tensors, write_model
from artifacts.graph.tensors import is_external, iter_tensors
from artifacts.untrusted.foreign_errors import foreign_errors
from artifacts.untrusted.read_input import require_inside

# A model whose tensors need more gets a data file. Protobuf ends at 2^31, browsers' buffers a little earlier.
INLINE_LIMIT_BYTES = 1_500_000_000

_COPY_AGAIN = "copy or export the file again"


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Put the file's name in front of the fact of a StepError, unless it is there."""
    try:
        yield
    except StepError as error:
        if error.fact.startswith(f"{path.name}: "):
            raise
        raise StepError(f"{path.name}: {error.fact}", error.fix) from None


def find_model(folder: Path) -> Path:
    """Return the only `.onnx` file of the folder. A path that is such a file is returned as it is.

    Raises StepError if there is none or more than one, or if it is a link out of the folder.
    """
    if folder.suffix == ".onnx" and folder.is_file():
        return folder
    models = sorted(path for path in folder.glob("*.onnx") if path.is_file())
    if len(models) != 1:
        names = ", ".join(f"'{path.name}'" for path in models) or "none"
        raise StepError(
            f"{folder.name}: must contain one .onnx file, found {names}",
            "give the file or folder of one model",
        )
    require_inside(models[0], "replace it by a copy of the file")
    return models[0]


def model_files(model: Path) -> list[Path]:
    """Return the files of a model: all of its folder and subfolders, or its `.onnx` file and then its external data.

    Raises StepError as `load_graph` does for a file.
    """
    if model.is_dir():
        return sorted(path for path in model.rglob("*") if path.is_file())
    locations = {reference_of(tensor).location for tensor in iter_tensors(load_graph(model)) if is_external(tensor)}
    return [model, *(model.parent / location for location in sorted(locations))]


def model_bytes(model: Path) -> int:
    """Return the bytes of all files of a model. Raises StepError as `model_files` does."""
    return sum(path.stat().st_size for path in model_files(model))


def load_graph(path: Path) -> ModelProto:
    """Return the model without its external data, after a check that each external tensor can be read.

    Raises StepError if the file is missing, truncated, of 2^31 bytes or more, or not ONNX, or if its external data are
    missing, too short, linked, outside the model's folder or of another size than their dims and dtype need.
    """
    if not path.is_file():
        raise StepError(f"{path.name}: no such file", "build the artifact again")
    if path.stat().st_size >= PROTOBUF_LIMIT_BYTES:
        raise StepError(f"{path.name}: {path.stat().st_size} bytes are too many for an ONNX file", _COPY_AGAIN)
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise StepError(f"{path.name}: not an ONNX file, or truncated ({error})", _COPY_AGAIN) from None
    if not (model.HasField("graph") and model.opset_import):
        raise StepError(f"{path.name}: not an ONNX file, or truncated: has no graph with its opset", _COPY_AGAIN)
    with errors_of(path):
        check_structure(model)
    check_references(model, path)
    return model


def save_graph(
    model: ModelProto,
    path: Path,
    *,
    source_folder: Path | None = None,
    external: bool | None = None,
    inline_limit_bytes: int = INLINE_LIMIT_BYTES,
) -> None:
    """Write the model to `path`, with its tensors in it or in `<path.name>.data` beside it, streamed.

    The bytes of a tensor come from the protobuf, or from the file in `source_folder` if it is external. That is the
    folder of the file that was loaded; it may be omitted when no tensor is external.
    `external` decides where the bytes go. True: tensors of 1024 bytes and more into the data file (initializers and
    Constants, also in the subgraphs of If, Loop and Scan), but no lists of integers, which shape inference reads.
    False: all into the protobuf. None: into the protobuf unless they need more than `inline_limit_bytes`. Tensors in
    the data file start at multiples of 64 bytes. The same model gives the same bytes.

    The model must not be used afterwards: its tensors refer to the new files. Raises StepError if the protobuf would
    reach 2^31 bytes, FileExistsError if a file to be written exists.
    """
    if source_folder is None and any(is_external(tensor) for tensor in iter_tensors(model)):
        raise ValueError("the model has external tensors: say in which folder they are")
    stored = stored_tensors(model, source_folder or path.parent)
    if external is None:
        external = sum(content.nbytes for _, content in stored) > inline_limit_bytes
    write_model(model, stored, path, external=external)


def consolidate(
    path_in: Path, path_out: Path, *, external: bool | None = None, inline_limit_bytes: int = INLINE_LIMIT_BYTES
) -> None:
    """Turn a model with any number of data files into `path_out` with at most one, and drop exporters' notes.

    `path_out` is in another folder than `path_in`. The data file is named after it, so this also renames a model. See
    `save_graph` for the parameters and `strip_docs` for the notes.
    """
    model = load_graph(path_in)
    strip_docs(model)
    save_graph(model, path_out, source_folder=path_in.parent, external=external, inline_limit_bytes=inline_limit_bytes)


def check_model(path: Path) -> None:
    """Run `onnx.checker` on the file (by path: its data may exceed 2 GB). Raises StepError with the checker's error."""
    with foreign_errors("onnx", f"{path.name}: not valid ONNX", "make the model again"):
        onnx.checker.check_model(str(path))


def strip_docs(model: ModelProto) -> None:
    """Clear the notes that exporters write for debugging: paths and stack traces, which differ between machines.

    These are every doc string of the model, and the metadata of its graphs, nodes, values and tensors. The model's own
    `metadata_props` stay: runtimes read them.
    """
    model.ClearField("doc_string")
    for tensor in iter_tensors(model):
        tensor.ClearField("doc_string")
        tensor.ClearField("metadata_props")
    _strip_graph(model.graph)
    for function in model.functions:
        function.ClearField("doc_string")
        function.ClearField("metadata_props")
        _strip_nodes(function.node)


def _strip_graph(graph: GraphProto) -> None:
    for item in (graph, *graph.input, *graph.output, *graph.value_info):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    _strip_nodes(graph.node)


def _strip_nodes(nodes: Iterable[NodeProto]) -> None:
    for node in nodes:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
        for subgraph in subgraphs(node):
            _strip_graph(subgraph)
