"""Run networks with ncnn: `Net` in this process, `open_net` and `run_isolated` with a child process that may crash.

ncnn aborts the whole process on some files that pnnx wrote. So the child loads a file first, and a crash becomes a
StepError.

Arithmetic is exact float32 unless asked otherwise, whatever the weights are stored as. So a measurement depends on the
artifact alone, and is the same on every processor that adds in the same order. ncnn's own defaults store values between
layers as fp16 or bf16 where the processor can.

A network may contain sherpa-ncnn's `SherpaMetaData` layer, which ncnn itself does not know. It is registered as a layer
that does nothing, so that one file serves both runtimes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ncnn
import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.ncnn.param_file import METADATA_TYPE, ParamFile, read_param
from artifacts.runtime.child_process import Answer, Worker

# For loading a network in a child process, and for each run there.
LIMIT_SECONDS = 600.0

_FIX = "convert the model again with the pnnx and ncnn that are pinned"

Array = npt.NDArray[Any]
Blob = npt.NDArray[np.float32]


class Net:
    """A network; `inputs` and `outputs` are the names of its blobs at both ends, in alphabetical order.

    A damaged file may crash the whole process: `open_net` loads it in another process first.
    """

    def __init__(self, param: Path, weights: Path, *, threads: int = 1, fp16_storage: bool = False) -> None:
        """Open `<name>.param` and `<name>.bin`. Raises StepError, with the layer if there is one, if ncnn cannot."""
        self._name = param.name
        file = read_param(param)
        require_known_layers(file, param.name)
        if not weights.is_file():
            raise StepError(f"{weights.name}: is missing beside {param.name}", _FIX)
        made = {name for layer in file.layers for name in layer.outputs}
        read = {name for layer in file.layers for name in layer.inputs}
        self.inputs = tuple(sorted(name for layer in file.layers if layer.type == "Input" for name in layer.outputs))
        self.outputs = tuple(sorted(made - read))
        self._metadata: list[ncnn.Layer] = []  # referenced here, because ncnn has no reference of its own
        # ncnn's own pool keeps the memory of a run as long as the network lives: 7 GB where no run needs more than 3.
        self._blobs, self._workspace = ncnn.PoolAllocator(), ncnn.PoolAllocator()
        self._net = ncnn.Net()
        _set_options(self._net.opt, threads, fp16_storage)
        self._net.register_custom_layer(METADATA_TYPE, self._make_metadata, lambda _: None)
        if self._net.load_param(str(param)) != 0:
            raise StepError(f"{param.name}: ncnn does not load it", _FIX)
        if self._net.load_model(str(weights)) != 0:
            raise StepError(f"{weights.name}: ncnn does not load it: it ends early, or is of another network", _FIX)

    def run(self, feeds: Mapping[str, Array], outputs: Iterable[str] | None = None) -> dict[str, Blob]:
        """Feed blobs and return others as float32 arrays: those that `outputs` names, or the outputs of the network.

        A feed is float32, or int32 for tokens. Its shape is that of ncnn's matrix, without a batch axis: `[W]`,
        `[H, W]` or `[C, H, W]`. Raises StepError for a blob that the network does not have or cannot compute.
        """
        results = self._extract(feeds, self.outputs if outputs is None else outputs)
        self._blobs.clear()
        self._workspace.clear()
        return results

    def _extract(self, feeds: Mapping[str, Array], outputs: Iterable[str]) -> dict[str, Blob]:
        extractor = self._net.create_extractor()
        extractor.set_blob_allocator(self._blobs)
        extractor.set_workspace_allocator(self._workspace)
        for name, value in feeds.items():
            array = np.ascontiguousarray(value)
            if array.dtype not in (np.float32, np.int32) or not 1 <= array.ndim <= 4:
                raise TypeError(f"blob '{name}': ncnn takes float32 and int32 of 1 to 4 axes, got {array.dtype}")
            # A copy: a Mat over numpy's memory has no reference count, and ncnn crashes where it works in place.
            if extractor.input(name, ncnn.Mat(array).clone()) != 0:
                raise StepError(f"{self._name}: has no blob '{name}'", f"its inputs are {', '.join(self.inputs)}")
        results: dict[str, Blob] = {}
        for name in outputs:
            code, found = extractor.extract(name)
            if code != 0:
                raise StepError(
                    f"{self._name}: blob '{name}' cannot be computed from {', '.join(feeds)} (ncnn's code {code})",
                    f"it takes {', '.join(self.inputs)} and makes {', '.join(self.outputs)}",
                )
            results[name] = np.array(found, dtype=np.float32)
        return results

    def _make_metadata(self) -> ncnn.Layer:
        self._metadata.append(ncnn.Layer())
        return self._metadata[-1]


def open_net(param: Path, weights: Path, *, threads: int = 1, fp16_storage: bool = False) -> Net:
    """Open a network after a child process has loaded it. Raises StepError if ncnn crashes on it, or as `Net` does."""
    run_isolated(param, weights, [], threads=threads, fp16_storage=fp16_storage)
    return Net(param, weights, threads=threads, fp16_storage=fp16_storage)


def run_isolated(
    param: Path,
    weights: Path,
    cases: Sequence[Mapping[str, Array]],
    outputs: Iterable[str] | None = None,
    *,
    threads: int = 1,
    fp16_storage: bool = False,
) -> list[dict[str, Blob]]:
    """Open a network in a child process and run it there once for each of `cases`, as `Net.run` does.

    Raises StepError as `Net` does, if ncnn crashes, or if it takes more than 10 minutes to load or for one run.
    """
    options = {
        "outputs": None if outputs is None else list(outputs),
        "threads": threads,
        "fp16_storage": fp16_storage,
    }
    with Worker(
        _serve_net,
        [param.absolute(), weights.absolute(), json.dumps(options)],
        LIMIT_SECONDS,
        f"{param.name}: ncnn",
        "convert the model again; if it was, pnnx wrote layers that ncnn misreads",
    ) as worker:
        return [_from_bytes(worker.ask(_to_bytes(feeds))) for feeds in cases]


def _serve_net(param: str, weights: str, text: str) -> Answer:
    """Open a network in the child process; return the function that runs it on feeds."""
    options = json.loads(text)
    outputs = options.pop("outputs")
    net = Net(Path(param), Path(weights), **options)
    return lambda request: _to_bytes(net.run(_from_bytes(request), outputs))


def _to_bytes(arrays: Mapping[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _from_bytes(data: bytes) -> dict[str, Array]:
    with np.load(io.BytesIO(data)) as arrays:
        return {name: arrays[name] for name in arrays.files}


def require_known_layers(file: ParamFile, location: str) -> None:
    """Raise StepError, with the first layer of a type that ncnn does not have.

    pnnx leaves torch operators in the network where ncnn has no layer for them (`Tensor.masked_fill`,
    `pnnx.Expression`), and exits without an error.
    """
    unknown = [each for each in file.layers if each.type != METADATA_TYPE and ncnn.layer_to_index(each.type) < 0]
    if unknown:
        types = ", ".join(sorted({layer.type for layer in unknown}))
        raise StepError(
            f"{location}: layer '{unknown[0].name}': ncnn has no layer '{unknown[0].type}' "
            f"({len(unknown)} of {len(file.layers)} layers: {types})",
            "write the network without this operator; a batch of one, for example, needs no masks",
        )


def _set_options(options: ncnn.Option, threads: int, fp16_storage: bool) -> None:
    options.num_threads = threads
    options.openmp_blocktime = 0
    options.use_vulkan_compute = False
    options.use_fp16_packed = options.use_fp16_storage = fp16_storage
    options.use_fp16_arithmetic = False
    options.use_bf16_storage = False
    if hasattr(options, "use_bf16_packed"):  # ncnn of 2026 and later
        options.use_bf16_packed = False
