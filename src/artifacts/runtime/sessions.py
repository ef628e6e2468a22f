"""Open and run ONNX Runtime sessions that give the same numbers for the same file on the same machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime

from artifacts.errors import StepError
from artifacts.runtime.data_files import data_files
from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_model
from artifacts.untrusted.foreign_errors import foreign_errors

# 256 MiB. The caches of a streaming encoder of 0.6 billion parameters are 5 MiB.
MAX_STATE_NUMBERS = 1 << 26

_GIVE = "give the artifact that the step's input is named for"
_KINDS = {"f": "floats", "i": "integers"}


class Output(NamedTuple):
    """Expected dtype kind of an output, numpy's 'f' or 'i', and its number of axes."""

    kind: str
    axes: int


def open_session(model: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open a model on the CPU with `threads` threads within an operator and one operator at a time.

    Other fixed options: all graph optimisations (the default of consumers), deterministic kernels, no spinning (idle
    threads would take cores from targets that build at the same time). The number of threads is part of a measurement:
    it may decide how a sum is split, and so its last bits.

    Raises StepError, with a short quote of ONNX Runtime, if the model does not load, and PermissionError for a file of
    external data that may not be read: a sandbox gives a step no more than its inputs.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.use_deterministic_compute = True
    options.log_severity_level = 4  # errors are raised, so they need not be printed
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    fact = f"{model.name}: ONNX Runtime does not load it"
    bound = bytes_for_model(_file_bytes(model))
    with bounded_memory(bound, fact), runtime_errors(fact, "build the model again, or correct its types"):
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _file_bytes(model: Path) -> int:
    """Return the bytes of all files in the model's folder, or of its own files if the folder may not be listed.

    A step on one file gets no list of what lies beside it. To find its external data, the file is read.
    """
    try:
        return sum(path.stat().st_size for path in model.parent.iterdir() if path.is_file())
    except PermissionError:
        return sum(map(_readable_bytes, (model, *data_files(model))))


def _readable_bytes(path: Path) -> int:
    """Return the size of a file. Raises PermissionError, with its name, where ONNX Runtime would quote it."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size


def runtime_errors(fact: str, fix: str) -> AbstractContextManager[None]:
    """Turn ONNX Runtime's errors into a StepError with a short quote in one line: they may contain a whole graph."""
    return foreign_errors("onnxruntime", fact, fix)


def run_session(
    session: onnxruntime.InferenceSession,
    name: str,
    outputs: Mapping[str, Output],
    feeds: Mapping[str, npt.NDArray[Any]],
    *,
    failing: str = "ONNX Runtime does not run it",
    fix: str = _GIVE,
) -> list[npt.NDArray[Any]]:
    """Run the model `name` and return its `outputs`, in their order.

    Raises StepError if ONNX Runtime does not run it, with `failing` as the fact and `fix` as the next move. Raises it
    if an output has another kind or number of axes: a runtime need not follow the declarations of a graph.
    """
    with runtime_errors(f"{name}: {failing}", fix):
        values = session.run(list(outputs), dict(feeds))
    for (output, (kind, axes)), value in zip(outputs.items(), values, strict=True):
        if not isinstance(value, np.ndarray) or value.dtype.kind != kind or value.ndim != axes or not value.shape[0]:
            found = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
            wanted = f"{_KINDS[kind]} of {axes} axes"
            raise StepError(f"{name}: gives the output '{output}' as {found}, needs {wanted}", _GIVE)
    checked: list[npt.NDArray[Any]] = values
    return checked


def zeros_of(value: Any, shape: Sequence[int | str | None], name: str) -> npt.NDArray[np.float32]:
    """Return zeros of this `shape` for the input `value` of the model `name`; an open axis has length 1.

    Raises StepError for more than MAX_STATE_NUMBERS of them: a file of a kilobyte may declare terabytes.
    """
    sizes = [size if isinstance(size, int) and size >= 0 else 1 for size in shape]
    if prod(sizes) > MAX_STATE_NUMBERS:
        raise StepError(f"{name}: input '{value.name}' is declared as {list(shape)}, more than any state has", _GIVE)
    return np.zeros(sizes, np.float32)


def require_values(
    session: onnxruntime.InferenceSession, model: Path, inputs: Iterable[str], outputs: Iterable[str]
) -> None:
    """Raise StepError unless the model has exactly these inputs, and at least these outputs."""
    for kind, wanted, found in (
        ("inputs", set(inputs), {value.name for value in session.get_inputs()}),
        ("outputs", set(outputs), {value.name for value in session.get_outputs()}),
    ):
        if not wanted <= found or (kind == "inputs" and wanted != found):
            raise StepError(
                f"{model.name}: has the {kind} {', '.join(sorted(found))}; needs {', '.join(sorted(wanted))}",
                "give the artifact that the step's input is named for",
            )
