"""One run of a model on made-up inputs: does it run, and are its numbers finite?

This shows that a file is whole, not that it is good: what it is worth is measured on speech.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.errors import StepError

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray

FRAMES = 32
"""The size of an open last axis: enough for four frames behind 8x subsampling."""


def trial_run(session: onnxruntime.InferenceSession, name: str) -> None:
    """Run the session once. Raises StepError, with the model's `name`, if that fails or gives NaN or infinity."""
    try:
        outputs = session.run(None, made_up_inputs(session))
    except Exception as error:  # ONNX Runtime's own classes share no base: see where it comes from
        if not type(error).__module__.startswith("onnxruntime."):
            raise
        reason = " ".join(str(error).split())[:300]
        raise StepError(f"{name}: ONNX Runtime does not run it: {reason}", "export the model again") from error
    for value, array in zip(session.get_outputs(), outputs, strict=True):
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise StepError(f"{name}: output '{value.name}' is not finite", "keep the nodes that overflow in fp32")


def made_up_inputs(session: onnxruntime.InferenceSession) -> dict[str, NDArray[Any]]:
    """An input of each name: waves for floats, the number of frames for lengths [B], zeros for other integers.

    Open axes are 1 long but for the last, which has `FRAMES` entries unless it is the only one.
    """
    shapes = {given.name: _shape(given.shape) for given in session.get_inputs()}
    types = {given.name: _dtype(given.type) for given in session.get_inputs()}
    frames = next((shapes[name][-1] for name in shapes if len(shapes[name]) > 1 and types[name].kind == "f"), FRAMES)
    return {name: _numbers(shape, types[name], frames) for name, shape in shapes.items()}


def _shape(dims: list[int | str | None]) -> tuple[int, ...]:
    last = len(dims) - 1
    return tuple(dim if isinstance(dim, int) else FRAMES if axis == last > 0 else 1 for axis, dim in enumerate(dims))


def _dtype(given: str) -> np.dtype[Any]:
    names = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
    return np.dtype(names.get(given, given.removeprefix("tensor(").removesuffix(")")))


def _numbers(shape: tuple[int, ...], dtype: np.dtype[Any], frames: int) -> NDArray[Any]:
    if dtype.kind == "f":
        return np.sin(np.arange(np.prod(shape), dtype=np.float64)).reshape(shape).astype(dtype)
    return np.full(shape, frames if len(shape) == 1 else 0, dtype)
