"""Copy networks into a layout, under the names that its consumer expects."""

from __future__ import annotations

from pathlib import Path

from artifacts.errors import StepError
from artifacts.files.copy import copy_file
from artifacts.ncnn.layer_fields import is_int8
from artifacts.ncnn.param_file import find_net, read_param


def copy_net(folder: Path, out: Path, stem: str, *, int8: bool) -> None:
    """Copy the network in `folder` to `<stem>.param` and `<stem>.bin` in `out`, for int8 `<stem>.int8.param` and so on.

    Raises StepError as `require_precision` does.
    """
    require_precision(folder, int8=int8)
    for source, end in zip(find_net(folder), (".param", ".bin"), strict=True):
        copy_file(source, out / f"{stem}{'.int8' if int8 else ''}{end}")


def require_precision(folder: Path, *, int8: bool) -> None:
    """Raise StepError unless the network in `folder` has int8 layers where `int8` says so, and none where it does not.

    Users find a network by its name, which says `int8` or not.
    """
    param, _ = find_net(folder)
    found = sum(is_int8(layer) for layer in read_param(param).layers)
    if bool(found) != int8:
        raise StepError(
            f"{param.name}: has {found or 'no'} int8 layers, where {'an int8' if int8 else 'a float'} network belongs",
            "give a network of the precision that the input is named for",
        )
