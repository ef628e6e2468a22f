"""One run of a model on made-up inputs: does it run, and are its numbers finite?

This shows that a file is whole, not that it is good: what it is worth is measured on speech.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.errors import StepError
from artifacts.untrusted.bounded_memory import bounded_memory, bytes_for_model
from artifacts.untrusted.foreign_errors import foreign_errors

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray

FRAMES = 32
"""The size of an open last axis: enough for four frames behind 8x subsampling."""

LIMIT_SECONDS = 20.0
# Most numbers of an input: a file of a kilobyte may declare terabytes.
MAX_NUMBERS = 1 << 24

_COMMON = ("float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(string)": "object"} | {
    f"tensor({name})": name for name in _COMMON
}


def trial_run(session: onnxruntime.InferenceSession, name: str, file_bytes: int = 0) -> None:
    """Run the session once. Raises StepError, with the model's `name`, if that fails or gives NaN or infinity.

    A model of `file_bytes` may take 1.5 GiB and four times as many, and 20 seconds and one for each two million.
    Fails too: a model with an input that is no tensor, or with values of a type that numpy lacks (bfloat16).
    """
    strange = [given for given in session.get_inputs() if given.type not in _DTYPES]
    strange += [given for given in session.get_outputs() if not any(known in given.type for known in _DTYPES)]
    if strange:
        raise StepError(
            f"{name}: '{strange[0].name}' is of type {strange[0].type}, which a trial run cannot give or take",
            "export the model with tensors of a common type as inputs and outputs",
        )
    for given in session.get_inputs():
        if prod(_shape(given.shape)) > MAX_NUMBERS:
            raise StepError(
                f"{name}: input '{given.name}' is declared as {given.shape}: a trial run gives {MAX_NUMBERS} numbers",
                "export the model with open dimensions",
            )
    fact = f"{name}: ONNX Runtime does not run it"
    with (
        bounded_memory(bytes_for_model(file_bytes), fact),
        foreign_errors("onnxruntime", fact, "export the model again"),
        _ended_after(LIMIT_SECONDS + file_bytes / 2e6) as options,
    ):
        outputs = session.run(None, made_up_inputs(session), options)
    for value, output in zip(session.get_outputs(), outputs, strict=True):
        if not all(_is_finite(part) for part in (output if isinstance(output, list) else [output])):
            raise StepError(f"{name}: output '{value.name}' is not finite", "keep the nodes that overflow in fp32")


@contextmanager
def _ended_after(seconds: float) -> Iterator[onnxruntime.RunOptions]:
    """Options of a run that ends with an error after so many seconds: a loop may have 2^63 rounds."""
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
    """True for what is not numbers, too: text, or the nothing of an optional output."""
    if not isinstance(part, np.ndarray) or not np.issubdtype(part.dtype, np.floating):
        return True
    return bool(np.isfinite(part).all())


def made_up_inputs(session: onnxruntime.InferenceSession) -> dict[str, NDArray[Any]]:
    """An input of each name: waves for floats, frames for lengths [B], zeros for other integers, empty strings.

    Open axes are 1 long but for the last, which has `FRAMES` entries unless it is the only one.
    """
    shapes = {given.name: _shape(given.shape) for given in session.get_inputs()}
    types = {given.name: np.dtype(_DTYPES[given.type]) for given in session.get_inputs()}
    frames = next((shapes[name][-1] for name in shapes if len(shapes[name]) > 1 and types[name].kind == "f"), FRAMES)
    return {name: _numbers(shape, types[name], frames) for name, shape in shapes.items()}


def _shape(dims: list[int | str | None]) -> tuple[int, ...]:
    last = len(dims) - 1
    return tuple(
        dim if isinstance(dim, int) and dim >= 0 else FRAMES if axis == last > 0 else 1 for axis, dim in enumerate(dims)
    )


def _numbers(shape: tuple[int, ...], dtype: np.dtype[Any], frames: int) -> NDArray[Any]:
    if dtype.kind == "f":
        return np.sin(np.arange(np.prod(shape), dtype=np.float64)).reshape(shape).astype(dtype)
    if dtype.kind == "O":
        return np.full(shape, "", dtype)
    return np.full(shape, frames if len(shape) == 1 else 0, dtype)
