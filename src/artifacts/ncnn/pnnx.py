"""Convert TorchScript to ncnn with pnnx, by the program that its package ships.

The program is called directly, because the package's own functions ignore its exit code and load torch. The exit code
proves little: pnnx exits with 0 even if it leaves torch operators in the network. So its files are read afterwards.

Two input shapes leave a length open: where they differ, pnnx writes a computation from the length instead of a number.
With one shape the length is fixed in the file, and another length gives wrong numbers without an error.
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

# 108.8 million parameters take 26 s.
LIMIT_SECONDS = 1800.0

# The batch axis in ncnn and pnnx where there is none.
NO_AXIS = 233

# Other files that pnnx writes, each with weights as large as the model's.
UNWANTED = ("pnnxparam", "pnnxbin", "pnnxpy", "pnnxonnx")

_TYPES = {"float32": "f32", "int64": "i64", "int32": "i32"}
_FEED = re.compile(r'ex\.input\("(\w+)", ncnn\.Mat\(\w+\.numpy\(\), batch_index=(\d+)\)')
_FIX = "trace the network in a form that pnnx knows: batch_first LSTMs, no masks, no nested inputs"


def convert(traced: Path, stem: str, out: Path, inputs: Sequence[Input], *, fp16: bool) -> list[int | None]:
    """Convert TorchScript to `<stem>.ncnn.param` and `<stem>.ncnn.bin` in `out`, with fp16 or float32 weights.

    Returns, for each input, the batch axis, which ncnn's matrix does not have; None if the matrix has all axes. The
    bytes do not depend on the folder or the number of threads. Raises StepError if pnnx fails, or leaves a torch
    operator in the network.
    """
    param, weights = out / f"{stem}.ncnn.param", out / f"{stem}.ncnn.bin"
    with TemporaryDirectory() as name:
        folder = Path(name)
        # pnnx reads `.pt` files only, and derives file names from the stem.
        (folder / f"{stem}.pt").symlink_to(traced.absolute())
        shapes = {"inputshape": [each.shape for each in inputs]}
        if any(each.shape != each.shape2 for each in inputs):
            shapes["inputshape2"] = [each.shape2 for each in inputs]
        shape_texts = {
            key: ",".join(_shape_text(shape, each.dtype) for shape, each in zip(sizes, inputs, strict=True))
            for key, sizes in shapes.items()
        }
        script = folder / f"{stem}_ncnn.py"
        files = {"ncnnparam": param.absolute(), "ncnnbin": weights.absolute(), "ncnnpy": script}
        files |= dict.fromkeys(UNWANTED, Path("/dev/null"))
        command: list[str | Path] = [_program(), f"{stem}.pt", f"fp16={int(fp16)}"]
        command += [f"{key}={value}" for key, value in (shape_texts | files).items()]
        run_program(command, folder, LIMIT_SECONDS, f"{traced.name}: pnnx does not convert it", _FIX)
        for path in (param, weights, script):
            if not path.is_file():
                raise StepError(f"{traced.name}: pnnx exits without an error and writes no {path.name}", _FIX)
        axes = {blob: int(axis) for blob, axis in _FEED.findall(script.read_text(encoding="utf-8"))}
    file = read_param(param)
    require_known_layers(file, param.name)
    blobs = [name for layer in file.layers if layer.type == "Input" for name in layer.outputs]
    if blobs != [f"in{number}" for number in range(len(inputs))] or set(axes) != set(blobs):
        raise StepError(
            f"{param.name}: has the inputs {', '.join(blobs)}, the trace has {len(inputs)}",
            "use each input in the network, and give its shape",
        )
    return [None if axes[blob] == NO_AXIS else axes[blob] for blob in blobs]


def _program() -> Path:
    """Return the executable in the package, without importing the package, which would load torch."""
    found = importlib.util.find_spec("pnnx")
    if found is None or not found.submodule_search_locations:
        raise StepError("'pnnx' is not installed", "pip install 'speech-artifacts[ncnn]' with its constraints.txt")
    return Path(found.submodule_search_locations[0]) / "pnnx"


def _shape_text(shape: Sequence[int], dtype: str) -> str:
    return f"[{','.join(str(size) for size in shape)}]{_TYPES[dtype]}"
