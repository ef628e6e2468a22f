"""Trace a network of a checkpoint as TorchScript, for pnnx to convert to ncnn.

Parts are called by NeMo's names; sherpa's are encoder, decoder and joiner. `<part>.pt` takes and gives float32, lengths
and token ids int64, in the order of `inputs.json`:
`{"inputs": [{"name", "dtype", "shape", "shape2"}, …], "outputs": [names]}`. It was traced at `shape`; an axis where
`shape2` differs is open, and pnnx has to be shown both: given one shape, it bakes the length in without a word.

The archive is the same bytes for the same checkpoint: the positions in source files that torch keeps beside the code
are left out. torch counts up the names of classes while a process lives, and each step has a process of its own.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from pydantic import Field, model_validator

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from torch import Tensor
    from torch.jit import ScriptModule

TOOLS = ("torch", "nemo_toolkit", "numpy")

# Tolerance for float32 sums in another order and for weights with a folded normalisation.
MAX_ABS_DIFF = 1e-4

log = logging.getLogger(__name__)

Sizes = Mapping[str, int]


class Network(Protocol):
    """What the kits' networks have: named inputs and outputs, and random inputs of given sizes."""

    inputs: Mapping[str, tuple[str | int, ...]]
    outputs: Mapping[str, tuple[str | int, ...]]

    def sample(self, sizes: Sizes, seed: int) -> tuple[Tensor, ...]:
        """Inputs, in their order."""

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs, in their order."""


class Lengths(NamedTuple):
    """A size for each open axis: to trace with, for pnnx to see as well, and to compare at, which neither saw."""

    traced: Sizes
    second: Sizes
    unseen: Sizes


class Params(StepParams):
    """`part`: which of the three networks."""

    part: Literal["encoder", "predictor", "joint"] = "encoder"
    max_seconds: float | None = Field(None, gt=0)
    """The longest recording that a FastConformer encoder takes. Its table of relative positions, float32 in whatever
    form the network is, ends there: of Parakeet's 41 MB a minute takes 6. All of the table unless given."""

    @model_validator(mode="after")
    def _only_encoders_have_a_table(self) -> Params:
        if self.max_seconds is not None and self.part != "encoder":
            raise ValueError("max_seconds: only an encoder has a table of positions")
        return self


def run(out: Path, params: Params, *, checkpoint: Path) -> dict[str, float | int]:
    """Write `<part>.pt` and `inputs.json`, from a `.nemo` file or icefall's checkpoint (`.pt`, or a folder with one).

    Returns the largest absolute difference between the trace and the network at a length that was not traced. Raises
    StepError if it is above 1e-4, and for a checkpoint that is of no supported form or damaged.
    """
    from artifacts.icefall.checkpoint import is_icefall

    is_nemo = not is_icefall(checkpoint)
    if is_nemo:
        network, lengths = _nemo_network(checkpoint, params, out)
    elif params.max_seconds is None:
        network, lengths = _icefall_network(checkpoint, params.part)
    else:
        raise StepError(
            f"{checkpoint.name}: max_seconds: an LSTM has no table of positions", "leave it out: any length goes"
        )
    path = out / f"{params.part}.pt"
    log.info("tracing %s", params.part)
    with _folded(network, is_nemo):
        _write(_trace(network, lengths.traced), path)
    _describe(network, lengths, out / "inputs.json")
    return {"max_abs_diff": _compare(path, network, lengths.unseen), "bytes": path.stat().st_size}


def _folded(network: Any, is_nemo: bool) -> AbstractContextManager[None]:
    """Leave no batch normalisation to pnnx, which folds it in float32."""
    if not is_nemo:
        return nullcontext()
    from artifacts.nemo.batch_norms import folded_batch_norms

    return folded_batch_norms(network)


def _icefall_network(checkpoint: Path, part: str) -> tuple[Network, Lengths]:
    from artifacts.icefall.checkpoint import load

    model = load(checkpoint)
    from artifacts.icefall.networks import CHUNK_FRAMES, NETWORKS

    sizes = ({"frames": frames} for frames in (39, CHUNK_FRAMES, 57)) if part == "encoder" else ({}, {}, {})
    return NETWORKS[part](model), Lengths(*sizes)


def _nemo_network(checkpoint: Path, params: Params, out: Path) -> tuple[Network, Lengths]:
    from artifacts.nemo.checkpoint import restore

    with TemporaryDirectory(dir=out) as unpacked:
        model = restore(checkpoint, Path(unpacked))
    # torch is imported by what follows: a checkpoint that is refused waits for neither torch nor NeMo.
    from artifacts.nemo.unbatched_networks import UnbatchedEncoder, UnbatchedJoint, UnbatchedPredictor

    if params.part == "encoder":
        # 29, 53 and 12 encoder frames. Two lengths with as many encoder frames would leave that number closed.
        sizes: Iterable[Sizes] = ({"frames": frames} for frames in (231, 421, 89))
        return UnbatchedEncoder(model, params.max_seconds), Lengths(*sizes)
    kind = UnbatchedPredictor if params.part == "predictor" else UnbatchedJoint
    return kind(model), Lengths({}, {}, {})


def _trace(network: Network, sizes: Sizes) -> ScriptModule:
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and all that pnnx reads
        return torch.jit.trace(network, network.sample(sizes, seed=0), check_trace=False)  # type: ignore[no-any-return, no-untyped-call]


def _write(module: ScriptModule, path: Path) -> None:
    """Save without the positions in source files, which hold this machine's paths and serve tracebacks only."""
    import torch

    with TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / path.name
        module.save(str(whole))
        reader = torch._C.PyTorchFileReader(str(whole))
        writer = torch._C.PyTorchFileWriter(str(path))
        # of the operators: in a file of an older one torch puts others in the place of a division
        writer.set_min_version(int(reader.get_record("version")))
        for name in reader.get_all_records():
            if not name.endswith(".debug_pkl") and name not in ("version", "byteorder", ".data/serialization_id"):
                record = reader.get_record(name)
                writer.write_record(name, record, len(record))
        writer.write_end_of_file()


def _describe(network: Network, lengths: Lengths, path: Path) -> None:
    """Write `inputs.json`."""
    samples = [network.sample(sizes, seed=0) for sizes in (lengths.traced, lengths.second)]
    inputs = [
        {
            "name": name,
            "dtype": str(first.dtype).removeprefix("torch."),
            "shape": list(first.shape),
            "shape2": list(second.shape),
        }
        for name, first, second in zip(network.inputs, *samples, strict=True)
    ]
    text = json.dumps({"inputs": inputs, "outputs": list(network.outputs)}, indent=2)
    path.write_text(f"{text}\n", encoding="utf-8")


def _compare(path: Path, network: Network, sizes: Sizes) -> float:
    """The largest absolute difference of any output, run from the file that was written."""
    import torch

    inputs = network.sample(sizes, seed=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, got = network(*inputs), torch.jit.load(str(path))(*inputs)  # type: ignore[no-untyped-call]
    largest = 0.0
    for name, want, have in zip(network.outputs, expected, got, strict=True):
        worst = float((want - have).abs().max()) if want.shape == have.shape else float("inf")
        if not worst <= MAX_ABS_DIFF:
            raise StepError(
                f"{path.name}: '{name}' differs from the network by {worst:.3g} at a length that was not traced, "
                f"{MAX_ABS_DIFF} is allowed",
                "the network decides something by its inputs' shapes: write it so that it does not",
            )
        largest = max(largest, worst)
    return largest
