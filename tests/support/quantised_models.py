"""Helpers for tests of quantisers: a model's file, ops, outputs and bytes, and a step run in another process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser

Array = np.ndarray[Any, Any]
Metrics = dict[str, float | int | str]
Features = list[tuple[Array, Array]]

PRODUCT = """<ir_version: 8, opset_import: ["" : OPSET]> g (float[B,2] x) => (float[B,2] y)
<float[2,2] w = {1, 2, 3, 4.5}> { y = MatMul(x, w) }"""

RUN_STEP = """
import json, sys
from importlib import import_module
from pathlib import Path
name, out, inputs, params = json.loads(sys.argv[1])
step = import_module(name)
step.run(Path(out), step.Params(**params), **{key: Path(value) for key, value in inputs.items()})
"""


def onnx_file(folder: Path) -> Path:
    (path,) = folder.glob("*.onnx")
    return path


def histogram(folder: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(onnx_file(folder)).graph.node)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def encode(folder: Path, features: Features) -> list[list[Array]]:
    """Frames and lengths of each utterance, by ONNX Runtime with all optimisations."""
    session = onnxruntime.InferenceSession(onnx_file(folder), providers=["CPUExecutionProvider"])
    return [session.run(None, {"audio_signal": audio, "length": length}) for audio, length in features]


def cosine_error(found: list[list[Array]], expected: list[list[Array]]) -> float:
    """1 - cosine of all encoder frames of all utterances."""
    a, b = (np.concatenate([run[0].ravel() for run in runs]).astype(np.float64) for runs in (found, expected))
    return 1 - float(a @ b / np.sqrt((a @ a) * (b @ b)))


def product_model(folder: Path, weight: object = None, *, opset: int = 17) -> Path:
    """A folder with one node, `product`, that multiplies by the weight [2, 2] or one of another shape."""
    folder.mkdir()
    model = parser.parse_model(PRODUCT.replace("OPSET", str(opset)))
    model.graph.node[0].name = "product"
    if weight is not None:
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(weight, np.float32), "w"))
    onnx.save(model, folder / "model.onnx")
    return folder


def run_elsewhere(step: ModuleType, out: Path, inputs: Mapping[str, Path], **params: Any) -> Path:
    """Run the step into the new folder `out`, in a process with another seed, folder and number of threads."""
    out.mkdir()
    spec = json.dumps([step.__name__, str(out), {name: str(path) for name, path in inputs.items()}, params])
    environment = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2", "TMPDIR": str(out.parent)}
    environment.pop("OPENBLAS_NUM_THREADS", None)
    command = [sys.executable, "-W", "error", "-c", RUN_STEP, spec]
    done = subprocess.run(command, env=environment, cwd=out.parent, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    return out
