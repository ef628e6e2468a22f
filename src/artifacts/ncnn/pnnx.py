"""pnnx: TorchScript to ncnn, by the program that its package ships.

The program is called itself: the package's own functions ignore its exit code and load torch. That code is no proof
either: with torch operators left in the network it exits as if all were well. So what it wrote is read afterwards.

Two input shapes make a length free: where they differ, pnnx writes what it computes from the length instead of the
length that it was shown. With one shape that length is fixed in the file, and another one gives wrong numbers without
an error.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from artifacts.errors import StepError
from artifacts.ncnn.param_file import read_param
from artifacts.ncnn.runtime import require_known_layers
from artifacts.ncnn.traced import Input
from artifacts.runtime.child_process import run_program

LIMIT_SECONDS = 1800.0
"""108.8 million parameters take 26 s."""

NO_AXIS = 233
"""What ncnn and pnnx call the batch's axis where there is none."""

UNWANTED = ("pnnxparam", "pnnxbin", "pnnxpy", "pnnxonnx")
"""What it writes besides, each with weights as large as the model's."""

_TYPES = {"float32": "f32", "int64": "i64", "int32": "i32"}
_FEED = re.compile(r'ex\.input\("(\w+)", ncnn\.Mat\(\w+\.numpy\(\), batch_index=(\d+)\)')
_FIX = "trace the network in a form that pnnx knows: batch_first LSTMs, no masks, no nested inputs"


def convert(traced: Path, stem: str, out: Path, inputs: Sequence[Input], *, fp16: bool) -> list[int | None]:
    """Convert TorchScript to `<stem>.ncnn.param` and `<stem>.ncnn.bin` in `out`, its weights as fp16 or as float32.

    Returns, for each input, the axis of the batch, which ncnn's matrix does not have; None if it has them all. The
    bytes are the same whatever the folder and the number of threads. Raises StepError if pnnx fails, or leaves an
    operator of torch in the network.
    """
    param, weights = out / f"{stem}.ncnn.param", out / f"{stem}.ncnn.bin"
    with TemporaryDirectory() as name:
        folder = Path(name)
        # Its reader wants the name to end so. The stem is the same each time, for file names come from it.
        (folder / f"{stem}.pt").symlink_to(traced.absolute())
        shapes = {"inputshape": [each.shape for each in inputs]}
        if any(each.shape != each.shape2 for each in inputs):
            shapes["inputshape2"] = [each.shape2 for each in inputs]
        said = {
            key: ",".join(_shape_text(shape, each.dtype) for shape, each in zip(sizes, inputs, strict=True))
            for key, sizes in shapes.items()
        }
        script = folder / f"{stem}_ncnn.py"
        files = {"ncnnparam": param.absolute(), "ncnnbin": weights.absolute(), "ncnnpy": script}
        files |= dict.fromkeys(UNWANTED, Path("/dev/null"))
        command: list[str | Path] = [_program(), f"{stem}.pt", f"fp16={int(fp16)}"]
        command += [f"{key}={value}" for key, value in (said | files).items()]
        run_program(command, folder, LIMIT_SECONDS, f"{traced.name}: pnnx does not convert it", _FIX)
        for path in (param, weights, script):
            if not path.is_file():
                raise StepError(f"{traced.name}: pnnx says nothing and writes no {path.name}", _FIX)
        axes = {blob: int(axis) for blob, axis in _FEED.findall(script.read_text(encoding="utf-8"))}
    file = read_param(param)
    require_known_layers(file, param.name)
    blobs = [name for layer in file.layers if layer.type == "Input" for name in layer.outputs]
    if blobs != [f"in{number}" for number in range(len(inputs))] or set(axes) != set(blobs):
        raise StepError(
            f"{param.name}: has the inputs {', '.join(blobs)}, the trace has {len(inputs)}",
            "give each input of the trace a use, and its shape",
        )
    return [None if axes[blob] == NO_AXIS else axes[blob] for blob in blobs]


def _program() -> Path:
    """The executable in the package, which need not be imported for that: it would load torch."""
    found = importlib.util.find_spec("pnnx")
    if found is None or not found.submodule_search_locations:
        raise StepError("'pnnx' is not installed", "pip install 'artifacts[ncnn]' with constraints.txt")
    return Path(found.submodule_search_locations[0]) / "pnnx"


def _shape_text(shape: Sequence[int], dtype: str) -> str:
    return f"[{','.join(str(size) for size in shape)}]{_TYPES[dtype]}"
