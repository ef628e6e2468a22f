"""What `inputs.json` says of a trace: its inputs with the shapes that leave a length open, and its outputs.

`{"inputs": [{"name", "dtype", "shape", "shape2"}, …], "outputs": [names]}`, in the order of the network's own. The
trace was made with inputs of the first shape; where the second one differs from it, an axis is open. In ncnn they are
called `in0`, `in1`, … and `out0`, `out1`, …; conversion adds each input's `batch_axis`, which ncnn's matrix leaves out
(null: it leaves none out).
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from artifacts.errors import StepError
from artifacts.untrusted.read_input import read_json, require_file, require_inside

NAME = "inputs.json"
# Most numbers of both shapes of an input together: the network is run on inputs of these shapes.
MAX_NUMBERS = 1 << 28


class Input(BaseModel):
    """An input as torch sees it."""

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
    """TorchScript, the name of the part that it is, and what it takes and makes."""

    module: Path
    part: str
    interface: Interface


def read_trace(folder: Path) -> Trace:
    """Find the one `<part>.pt` in an artifact's folder, with its `inputs.json`. Raises StepError if it is not so."""
    fix = "give the artifact of trace_torchscript"
    modules = sorted(folder.glob("*.pt"))
    if len(modules) != 1:
        names = ", ".join(path.name for path in modules) or "none"
        raise StepError(f"{folder.name}: expected one .pt file, found {names}", fix)
    require_file(modules[0], fix)
    require_inside(modules[0], fix)
    return Trace(modules[0], modules[0].stem, read_interface(folder, fix))


def read_interface(folder: Path, fix: str) -> Interface:
    """Read `inputs.json` of an artifact. Raises StepError, with the key, if it is missing or not what it must be."""
    try:
        found = Interface.model_validate(read_json(folder / NAME, fix))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(key) for key in first["loc"])
        raise StepError(f"{NAME}: {place}: {first['msg'].lower()}", fix) from None
    for each in found.inputs:
        # Both shapes are tried, and a third one that is as long as both.
        numbers = prod(map(sum, zip(each.shape, each.shape2, strict=False)))
        if len(each.shape) != len(each.shape2) or min(each.shape + each.shape2) < 1 or numbers > MAX_NUMBERS:
            raise StepError(f"{NAME}: inputs: '{each.name}': no shapes of one input: {each.shape}, {each.shape2}", fix)
    return found


def write_interface(interface: Interface, folder: Path) -> None:
    """Write `inputs.json`."""
    text = json.dumps(interface.model_dump(mode="json"), indent=2)
    (folder / NAME).write_text(f"{text}\n", encoding="utf-8")
