"""Whether a network computes with int8 just where the name says so under which its users find it."""

from __future__ import annotations

from pathlib import Path

from artifacts.errors import StepError
from artifacts.ncnn.layer_fields import is_int8
from artifacts.ncnn.param_file import read_param
from artifacts.ncnn.runtime import find_net


def require_form(folder: Path, *, int8: bool) -> None:
    """Raises StepError unless the network in `folder` has int8 layers if it is to be `int8`, and none if it is not."""
    param, _ = find_net(folder)
    found = sum(is_int8(layer) for layer in read_param(param).layers)
    if bool(found) != int8:
        raise StepError(
            f"{param.name}: has {found or 'no'} int8 layers, where {'an int8' if int8 else 'a float'} network belongs",
            "give the network whose form is the input's name",
        )
