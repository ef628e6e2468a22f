"""Trace a network as TorchScript for pnnx, describe its inputs and outputs, and compare the file with the network.

The archive is the same bytes for the same checkpoint: the positions in source files that torch keeps beside the code
are left out. torch numbers the names of classes while a process lives, so each trace needs a process of its own.
Names of our classes, modules and local variables are part of the archive: renaming one changes its bytes.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import torch

from artifacts.errors import StepError
from artifacts.model.network import Network, Sizes
from artifacts.ncnn.traced import Input, Interface

if TYPE_CHECKING:
    from torch.jit import ScriptModule

# Tolerance for float32 sums in another order and for weights with a folded normalisation.
MAX_ABS_DIFF = 1e-4
# Records of the archive that a writer adds by itself.
_WRITTEN_BY_TORCH = ("version", "byteorder", ".data/serialization_id")

log = logging.getLogger(__name__)


class Lengths(NamedTuple):
    """Three sizes for each axis that can vary: of the trace, of pnnx's second look, and of the comparison.

    The third differs from both others, so that a length that became a constant is found.
    """

    traced: Sizes
    second: Sizes
    unseen: Sizes


NO_OPEN_LENGTH = Lengths({}, {}, {})


def write_trace(network: Network, sizes: Sizes, path: Path) -> None:
    """Trace the network with inputs of these sizes and save it."""
    log.info("tracing %s", path.stem)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and all that pnnx reads
        module: ScriptModule = torch.jit.trace(network, network.sample(sizes, seed=0), check_trace=False)  # type: ignore[no-untyped-call]
    with TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / path.name
        module.save(str(whole))
        _copy_without_source_positions(whole, path)


def _copy_without_source_positions(whole: Path, path: Path) -> None:
    """Copy all records but the positions, which contain this machine's paths and serve tracebacks only."""
    reader = torch._C.PyTorchFileReader(str(whole))
    writer = torch._C.PyTorchFileWriter(str(path))
    # of the operators: in a file of an older one torch puts others in the place of a division
    writer.set_min_version(int(reader.get_record("version")))
    for name in reader.get_all_records():
        if not name.endswith(".debug_pkl") and name not in _WRITTEN_BY_TORCH:
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()


def interface_of(network: Network, lengths: Lengths) -> Interface:
    """Return the names, types and two shapes of the inputs, and the names of the outputs."""
    samples = [network.sample(sizes, seed=0) for sizes in (lengths.traced, lengths.second)]
    inputs = [
        Input.model_validate(
            {
                "name": name,
                "dtype": str(first.dtype).removeprefix("torch."),
                "shape": list(first.shape),
                "shape2": list(second.shape),
            }
        )
        for name, first, second in zip(network.inputs, *samples, strict=True)
    ]
    return Interface(inputs=inputs, outputs=list(network.outputs))


def max_abs_diff(path: Path, network: Network, sizes: Sizes) -> float:
    """Return the largest absolute difference of any output between the saved trace and the network, at these sizes.

    Raises StepError if it is above `MAX_ABS_DIFF`.
    """
    inputs = network.sample(sizes, seed=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, got = network(*inputs), torch.jit.load(str(path))(*inputs)  # type: ignore[no-untyped-call]
    largest = 0.0
    for name, want, have in zip(network.outputs, expected, got, strict=True):
        difference = float((want - have).abs().max()) if want.shape == have.shape else float("inf")
        if not difference <= MAX_ABS_DIFF:
            raise StepError(
                f"{path.name}: '{name}' differs from the network by {difference:.3g} at a length that was not traced,"
                f" {MAX_ABS_DIFF} is allowed",
                "make the network independent of the lengths of its inputs",
            )
        largest = max(largest, difference)
    return largest
