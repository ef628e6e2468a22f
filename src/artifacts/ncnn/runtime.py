"""ncnn's runtime: a network opened from its two files, and run with named numpy arrays.

Arithmetic is exact float32 unless asked otherwise, whatever the weights are stored as, so that a measurement is that of
the artifact and the same on every processor that adds in the same order. ncnn's own defaults store what passes between
layers as fp16 or bf16 where the processor can.

Files may hold sherpa-ncnn's `SherpaMetaData`, which ncnn itself does not know: it is registered as a layer that does
nothing, so one file serves both runtimes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ncnn
import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.ncnn.param_file import ParamFile, read_param
from artifacts.untrusted.read_input import require_inside

METADATA_TYPE = "SherpaMetaData"
_FIX = "convert the model again with the pnnx and ncnn that are pinned"

Array = npt.NDArray[Any]
Blob = npt.NDArray[np.float32]


class Net:
    """A network. `inputs` and `outputs` are the names of its blobs at both ends, in the alphabet's order.

    A file that is no network may crash the whole process: `isolated.open_net` tries it in another one first.
    """

    def __init__(self, param: Path, weights: Path, *, threads: int = 1, fp16_storage: bool = False) -> None:
        """Open `<name>.param` and `<name>.bin`. Raises StepError, with the layer if it is one, if ncnn cannot."""
        self._name = param.name
        file = read_param(param)
        require_known_layers(file, param.name)
        if not weights.is_file():
            raise StepError(f"{weights.name}: there is no such file beside {param.name}", _FIX)
        made = {name for layer in file.layers for name in layer.outputs}
        read = {name for layer in file.layers for name in layer.inputs}
        self.inputs = tuple(sorted(name for layer in file.layers if layer.type == "Input" for name in layer.outputs))
        self.outputs = tuple(sorted(made - read))
        self._metadata: list[ncnn.Layer] = []  # kept, for ncnn holds no reference of its own
        # ncnn's own pool keeps what runs needed as long as the network lives: 7 GB where no run needs more than 3
        self._blobs, self._workspace = ncnn.PoolAllocator(), ncnn.PoolAllocator()
        self._net = ncnn.Net()
        _set_options(self._net.opt, threads, fp16_storage)
        self._net.register_custom_layer(METADATA_TYPE, self._make_metadata, lambda _: None)
        if self._net.load_param(str(param)) != 0:
            raise StepError(f"{param.name}: ncnn does not load it", _FIX)
        if self._net.load_model(str(weights)) != 0:
            raise StepError(f"{weights.name}: ncnn does not load it: it ends early, or is another model's", _FIX)

    def run(self, feeds: Mapping[str, Array], outputs: Iterable[str] | None = None) -> dict[str, Blob]:
        """Feed blobs and return others (`outputs` of the network unless named), as float32 arrays.

        A feed is float32, or int32 for tokens, and has the shape of ncnn's matrix: `[W]`, `[H, W]` or `[C, H, W]`; the
        axis of a batch is not among them. Raises StepError for a blob that the network does not have or not reach.
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
            # A copy, for a Mat over foreign memory has no reference count, and ncnn crashes where it works in place.
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


def require_known_layers(file: ParamFile, place: str) -> None:
    """Raise StepError, naming the first layer of a type that ncnn does not have.

    pnnx leaves torch's operators where it has no layer for them (`Tensor.masked_fill`, `pnnx.Expression`), and exits as
    if all were well.
    """
    unknown = [each for each in file.layers if each.type != METADATA_TYPE and ncnn.layer_to_index(each.type) < 0]
    if unknown:
        types = ", ".join(sorted({layer.type for layer in unknown}))
        raise StepError(
            f"{place}: layer '{unknown[0].name}': ncnn has no layer '{unknown[0].type}' "
            f"({len(unknown)} of {len(file.layers)} layers: {types})",
            "write the network without this operator; masks, for one, are not needed for a batch of one",
        )


def find_net(folder: Path) -> tuple[Path, Path]:
    """The `.param` and the `.bin` of the one network in an artifact's folder. Raises StepError if it is not one."""
    found = sorted(folder.glob("*.param"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise StepError(f"{folder.name}: expected one .param file, found {names}", "give the folder of an ncnn model")
    files = found[0], found[0].with_suffix(".bin")
    for path in files:
        require_inside(path, "put a copy of the file in its place")
    return files


def _set_options(options: ncnn.Option, threads: int, fp16_storage: bool) -> None:
    options.num_threads = threads
    options.openmp_blocktime = 0
    options.use_vulkan_compute = False
    options.use_fp16_packed = options.use_fp16_storage = fp16_storage
    options.use_fp16_arithmetic = False
    options.use_bf16_storage = False
    if hasattr(options, "use_bf16_packed"):  # not before 2026
        options.use_bf16_packed = False
