"""Folder of a traced network: `<part>.pt`, and `inputs.json` with the names, types and shapes of its inputs.

`inputs.json` is `{"inputs": [{"name", "dtype", "shape", "shape2"}, …], "outputs": [names]}`, in the network's order.
The trace was made with inputs of `shape`. An axis where `shape2` differs can vary. pnnx needs both shapes: given one,
it writes the length into the network as a constant, without a warning.

ncnn calls the inputs `in0`, `in1`, … and the outputs `out0`, `out1`, …. Conversion adds each input's `batch_axis`, the
axis that ncnn's matrix does not have (null if it has all).
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from artifacts.errors import StepError
from artifacts.untrusted.read_input import read_json, require_file, require_inside
from artifacts.validation_errors import first_mistake

NAME = "inputs.json"
# Most numbers in an input that has the lengths of both shapes together: the network is run on such inputs.
MAX_NUMBERS = 1 << 28


class Input(BaseModel):
    """An input of the traced network. `batch_axis`: see the module; absent before conversion."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    name: str = Field(min_length=1)
    dtype: Literal["float32", "int64", "int32"]
    shape: list[int] = Field(min_length=1)
    shape2: list[int] = Field(min_length=1)
    batch_axis: int | None = None


class Interface(BaseModel):
    """The inputs and outputs of a trace."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    inputs: list[Input] = Field(min_length=1)
    outputs: list[str] = Field(min_length=1)


class Trace(NamedTuple):
    """Path of the TorchScript file, name of the part, and its inputs and outputs."""

    module: Path
    part: str
    interface: Interface


def read_trace(folder: Path) -> Trace:
    """Find the one `<part>.pt` of a folder and read its `inputs.json`. Raises StepError unless there is just one."""
    fix = "give the artifact of trace_nemo or trace_icefall"
    modules = sorted(folder.glob("*.pt"))
    if len(modules) != 1:
        names = ", ".join(path.name for path in modules) or "none"
        raise StepError(f"{folder.name}: expected one .pt file, found {names}", fix)
    require_file(modules[0], fix)
    require_inside(modules[0], fix)
    return Trace(modules[0], modules[0].stem, read_interface(folder, fix))


def read_interface(folder: Path, fix: str) -> Interface:
    """Read `inputs.json` of a folder. Raises StepError, with the key, if it is missing or invalid."""
    try:
        interface = Interface.model_validate(read_json(folder / NAME, fix))
    except ValidationError as error:
        raise StepError(f"{NAME}: {first_mistake(error)}", fix) from None
    for each in interface.inputs:
        # The network is run with both shapes, and with a third one that is as long as both together.
        numbers = prod(map(sum, zip(each.shape, each.shape2, strict=False)))
        if len(each.shape) != len(each.shape2) or min(each.shape + each.shape2) < 1 or numbers > MAX_NUMBERS:
            raise StepError(
                f"{NAME}: inputs: '{each.name}': {each.shape} and {each.shape2} are not shapes of one input", fix
            )
    return interface


def write_interface(interface: Interface, folder: Path) -> None:
    """Write `inputs.json`, without the keys that were never set."""
    text = json.dumps(interface.model_dump(mode="json", exclude_unset=True), indent=2)
    (folder / NAME).write_text(f"{text}\n", encoding="utf-8")
