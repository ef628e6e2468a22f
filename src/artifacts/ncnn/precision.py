"""Whether a network computes with int8, as the name says under which its users find it."""

from __future__ import annotations

from pathlib import Path

from artifacts.errors import StepError
from artifacts.ncnn.layer_fields import is_int8
from artifacts.ncnn.param_file import read_param
from artifacts.ncnn.runtime import find_net


def hold_to_name(given: str, folder: Path) -> None:
    """Raises StepError unless the network in `folder` has int8 layers just where `given`, an input's name, ends so."""
    wanted = given.endswith("_int8")
    param, _ = find_net(folder)
    found = sum(is_int8(layer) for layer in read_param(param).layers)
    if bool(found) != wanted:
        raise StepError(
            f"{given}: '{param.name}' has {found or 'no'} int8 layers",
            "give a network that was quantised" if wanted else "give this one as an int8 network, and here a float one",
        )
