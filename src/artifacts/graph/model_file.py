"""A model in a folder: found, loaded without its weights, written with them.

A model is one `.onnx` file, and when it is large its tensors are in one more, `<name>.onnx.data`, beside it. What
happens in between costs no memory: `load_graph` reads the protobuf alone, the tensors keep pointing at their file, and
`save_graph` copies their bytes from there.

    model = load_graph(path)                                        # external tensors stay where they are
    ...                                                             # change nodes; give a tensor new values inline
    save_graph(model, out / path.name, source_folder=path.parent)   # external ones are copied, inline ones written

`TensorReader(path)` (see `tensor_reader`) gives the values of single tensors as numpy views.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import ModelProto

from artifacts.errors import StepError
from artifacts.graph.external_data import check_references
from artifacts.graph.strip_docs import strip_docs
from artifacts.graph.structure import check_structure
from artifacts.graph.tensor_reader import TensorReader
from artifacts.graph.tensor_writer import PROTOBUF_LIMIT_BYTES, stored_tensors, write_model
from artifacts.graph.tensors import is_external, iter_tensors
from artifacts.untrusted.foreign_errors import foreign_errors
from artifacts.untrusted.read_input import require_inside

__all__ = [
    "TensorReader",
    "check_model",
    "consolidate",
    "find_model",
    "iter_tensors",
    "load_graph",
    "model_bytes",
    "save_graph",
]

INLINE_LIMIT_BYTES = 1_500_000_000
"""A model whose tensors need more goes into two files. Protobuf ends at 2^31, browsers' buffers a little earlier."""

_COPY_AGAIN = "copy or export the file again"


def find_model(folder: Path) -> Path:
    """The only `.onnx` file in the folder. Raises StepError if there is none, more than one, or a link out of it."""
    models = sorted(path for path in folder.glob("*.onnx") if path.is_file())
    if len(models) != 1:
        names = ", ".join(f"'{path.name}'" for path in models) or "none"
        raise StepError(f"{folder.name}: one .onnx file is expected, found {names}", "give the folder of one model")
    require_inside(models[0], "put a copy of the file in its place")
    return models[0]


def model_bytes(folder: Path) -> int:
    """The bytes of all files of a model's folder, subfolders included."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def load_graph(path: Path) -> ModelProto:
    """The model without its external data, after checking that each external tensor can be read.

    Raises StepError if the file is missing, truncated, of 2^31 bytes or more, or not ONNX, or if its external data are
    missing, too short, linked, outside the model's folder or of another size than their dims and dtype say.
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
        raise StepError(f"{path.name}: not an ONNX file, or truncated: it holds no graph with its opset", _COPY_AGAIN)
    try:
        check_structure(model)
    except StepError as error:
        raise StepError(f"{path.name}: {error.fact}", error.fix) from None
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

    Bytes come from where a tensor has them: the protobuf, or for external ones the file in `source_folder` (the folder
    of the file that was loaded; it may be left out when no tensor is external).
    `external` says where they go: True = tensors of 1024 bytes and more into the data file (initializers and Constants,
    also in the bodies of If, Loop and Scan), False = all into the protobuf, None = into the protobuf unless they need
    more than `inline_limit_bytes`. Tensors in the data file start at multiples of 64 bytes. The same model gives the
    same bytes.

    The model is used up: afterwards its tensors refer to the new files. Raises StepError if the protobuf would reach
    2^31 bytes, FileExistsError if a file to be written is there already.
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
    """Turn a model with any number of loose data files into `path_out` with at most one, and drop exporters' notes.

    `path_out` is in another folder than `path_in`; the data file is called after it, so this also renames a model. See
    `save_graph` for the parameters and `strip_docs` for what is dropped.
    """
    model = load_graph(path_in)
    strip_docs(model)
    save_graph(model, path_out, source_folder=path_in.parent, external=external, inline_limit_bytes=inline_limit_bytes)


def check_model(path: Path) -> None:
    """Run `onnx.checker` on the file (by path: its data may exceed 2 GB). Raises StepError with what it found."""
    with foreign_errors("onnx", f"{path.name}: not valid ONNX", "make the model again"):
        onnx.checker.check_model(str(path))
