"""Run a model once on dummy inputs, and check that its outputs are finite where its source's are.

This shows that a file is whole, not that it is good. Its quality is measured on speech.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.errors import StepError
from artifacts.graph.model_file import check_model, model_bytes
from artifacts.runtime.sessions import open_session
from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_model
from artifacts.untrusted.foreign_errors import foreign_errors

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray

# The size of an open last axis: enough for four frames behind 8x subsampling.
FRAMES = 32
# Sizes of open last axes, and the number in masks and indices. The second pair is for models that refuse the first:
# a window of speech at 16 kHz, or a mask that hides everything where it is zero.
TRIES = ((FRAMES, 0), (512, 1))

LIMIT_SECONDS = 20.0
# The most numbers of an input. A file of a kilobyte may declare terabytes.
MAX_NUMBERS = 1 << 24

_COMMON = ("float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(string)": "object"} | {
    f"tensor({name})": name for name in _COMMON
}


def check_and_run(path: Path, source: Path, *, finite: bool = False) -> dict[str, str]:
    """Check the model file with `onnx.checker`, and run it on the CPU as its `source` runs. Each has its own folder.

    Dummy inputs may be too short for a model, or mask everything. So what fails on them is compared with the source:
    the result may do what the source does. Metrics: none, or `smoke_run`, which says why neither ran.
    Raises StepError if the file is not valid ONNX or does not load. Also if it does not run where the source does, or
    has NaN or infinity in an output where the source has none; with `finite`, also if no inputs give finite numbers.
    """
    check_model(path)
    session, file_bytes = open_session(path, threads=1), model_bytes(path.parent)
    reason, not_finite = "", list[_SmokeError]()
    for size, number in TRIES:
        failure = _failure(session, path.name, file_bytes, size, number)
        if failure is None:
            return {}
        expected = _failure(_open_source(source, failure), source.name, model_bytes(source), size, number)
        if expected is None or failure.is_worse_than(expected):
            raise failure
        reason = expected.fact
        if failure.outputs:
            not_finite.append(failure)
    if finite and not_finite:
        raise not_finite[0]
    return {"smoke_run": f"not run: {reason}"}


class _SmokeError(StepError):
    """A model does not run, or has numbers that are not finite in these outputs."""

    def __init__(self, fact: str, fix: str, outputs: frozenset[str] | None = None) -> None:
        super().__init__(fact, fix)
        self.outputs = outputs

    def is_worse_than(self, other: _SmokeError) -> bool:
        if self.outputs is None or other.outputs is None:
            return other.outputs is not None
        return not self.outputs <= other.outputs


def _failure(
    session: onnxruntime.InferenceSession, name: str, file_bytes: int, size: int, number: int
) -> _SmokeError | None:
    try:
        outputs = smoke_run(session, name, file_bytes, size, number)
    except StepError as error:
        return _SmokeError(error.fact, error.fix)
    if outputs:
        fact = f"{name}: output '{min(outputs)}' is not finite"
        return _SmokeError(fact, "keep the nodes that overflow in fp32", outputs)
    return None


def _open_source(source: Path, failure: StepError) -> onnxruntime.InferenceSession:
    try:
        return open_session(source, threads=1)
    except StepError:
        raise failure from None  # a source that does not load, such as one with wrong Casts, decides nothing


def smoke_run(
    session: onnxruntime.InferenceSession, name: str, file_bytes: int = 0, size: int = FRAMES, number: int = 0
) -> frozenset[str]:
    """Run the session once; return the names of outputs with NaN or infinity. `size` and `number` as `dummy_inputs`.

    Raises StepError, with the model's `name`, if it does not run. A model of `file_bytes` bytes may use 1.5 GiB plus
    four times its bytes, and 20 seconds plus one for each 2 million bytes. Also raises StepError for an input that is
    not a tensor, and for a type that numpy lacks (bfloat16).
    """
    unsupported = [value for value in session.get_inputs() if value.type not in _DTYPES]
    unsupported += [value for value in session.get_outputs() if not any(known in value.type for known in _DTYPES)]
    if unsupported:
        raise StepError(
            f"{name}: '{unsupported[0].name}' has type {unsupported[0].type}, which a smoke run does not support",
            "export the model with tensors of a common type as inputs and outputs",
        )
    for value in session.get_inputs():
        if prod(_shape(value.shape, size)) > MAX_NUMBERS:
            raise StepError(
                f"{name}: input '{value.name}' has shape {value.shape}, a smoke run gives {MAX_NUMBERS} numbers",
                "export the model with open dimensions",
            )
    fact = f"{name}: ONNX Runtime does not run it"
    with (
        bounded_memory(bytes_for_model(file_bytes), fact),
        foreign_errors("onnxruntime", fact, "export the model again"),
        _ended_after(LIMIT_SECONDS + file_bytes / 2e6) as options,
    ):
        outputs = session.run(None, dummy_inputs(session, size, number), options)
    return frozenset(
        value.name
        for value, output in zip(session.get_outputs(), outputs, strict=True)
        if not all(_is_finite(part) for part in (output if isinstance(output, list) else [output]))
    )


@contextmanager
def _ended_after(seconds: float) -> Iterator[onnxruntime.RunOptions]:
    """Give options of a run that ends with an error after so many seconds: a loop may have 2^63 iterations."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    late = threading.Timer(seconds, setattr, (options, "terminate", True))
    late.daemon = True
    late.start()
    try:
        yield options
    finally:
        late.cancel()


def _is_finite(part: object) -> bool:
    """Return whether all numbers are finite. True also for text and for an empty optional output."""
    if not isinstance(part, np.ndarray) or not np.issubdtype(part.dtype, np.floating):
        return True
    return bool(np.isfinite(part).all())


def dummy_inputs(session: onnxruntime.InferenceSession, size: int = FRAMES, number: int = 0) -> dict[str, NDArray[Any]]:
    """Return an array for each input: a sine for floats, frames for lengths [B], else `number` or empty strings.

    An open axis has size 1. An open last axis has size `size` unless it is the only axis.
    """
    shapes = {value.name: _shape(value.shape, size) for value in session.get_inputs()}
    types = {value.name: np.dtype(_DTYPES[value.type]) for value in session.get_inputs()}
    frames = next((shapes[name][-1] for name in shapes if len(shapes[name]) > 1 and types[name].kind == "f"), size)
    return {name: _numbers(shape, types[name], frames, number) for name, shape in shapes.items()}


def _shape(dims: list[int | str | None], size: int) -> tuple[int, ...]:
    last = len(dims) - 1
    return tuple(
        dim if isinstance(dim, int) and dim >= 0 else size if axis == last > 0 else 1 for axis, dim in enumerate(dims)
    )


def _numbers(shape: tuple[int, ...], dtype: np.dtype[Any], frames: int, number: int) -> NDArray[Any]:
    if dtype.kind == "f":
        return np.sin(np.arange(np.prod(shape), dtype=np.float64)).reshape(shape).astype(dtype)
    if dtype.kind == "O":
        return np.full(shape, "", dtype)
    return np.full(shape, frames if len(shape) == 1 else number, dtype)
