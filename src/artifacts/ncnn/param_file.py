"""Read and write ncnn's `.param` files: a network as text, one line a layer.

```
7767517
<layers> <blobs>
<type> <name> <number of inputs> <number of outputs> <inputs…> <outputs…> <id>=<value> …
```

A value is an integer, a number with a point or an exponent, or a string, in quotes unless it is a word. An array has
the id `-23300 - id` and its length before its elements (`-23316=2,5,4`). Documented in ncnn's "param and model file
structure"; strings and the form of pnnx's numbers are taken from the files that it writes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from artifacts.errors import StepError
from artifacts.untrusted.read_input import read_text, require_inside

MAGIC = "7767517"
FIRST_ARRAY_ID = -23300
LARGEST_INTEGER = 2**31 - 1
LARGEST_FLOAT = float.fromhex("0x1.fffffep+127")
# Ids are below this: ncnn's NCNN_MAX_PARAM_COUNT.
MOST_PARAMS = 32
# The layer by which sherpa-ncnn knows an encoder; ncnn itself does not know it.
METADATA_TYPE = "SherpaMetaData"

Number = int | float
Value = Number | str | tuple[Number, ...]

_FIX = "convert the model again; the file is damaged"
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_PARAM = re.compile(r'(-?[0-9]{1,9})=("[^"]*"|\S*)(?:\s+|$)')
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][-+]?[0-9]{1,9})?")


@dataclass(frozen=True)
class Layer:
    """One layer: its input and output blobs, and its parameters by id, in the order of the file."""

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[int, Value]

    def integer(self, key: int, default: int = 0) -> int:
        """Return the parameter `key` as an integer. Raises StepError if it is of another type."""
        value = self.params.get(key, default)
        if isinstance(value, int):
            return value
        raise StepError(f"layer '{self.name}' ({self.type}): param {key}: expected an integer, got {value!r}", _FIX)


@dataclass(frozen=True)
class ParamFile:
    """A network. The counts in the second line of the file follow from the layers."""

    layers: tuple[Layer, ...]

    @property
    def blobs(self) -> tuple[str, ...]:
        """Return the names of all blobs, in the order in which they first appear."""
        names = [name for layer in self.layers for name in (*layer.inputs, *layer.outputs)]
        return tuple(dict.fromkeys(names))


def find_net(folder: Path) -> tuple[Path, Path]:
    """Return the `.param` and the `.bin` of the one network in an artifact's folder. Raises StepError otherwise."""
    found = sorted(folder.glob("*.param"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise StepError(f"{folder.name}: expected one .param file, found {names}", "give the folder of an ncnn network")
    files = found[0], found[0].with_suffix(".bin")
    for path in files:
        require_inside(path, "put a copy of the file in its place")
    return files


def read_param(path: Path) -> ParamFile:
    """Read a `.param` file.

    Raises StepError, with the line, for another file, and for one that was cut or changed. The counts must be right.
    Each layer must have its own name. Each blob must have one producer, which comes before its consumers.
    """
    lines = read_text(path, "give a .param file in text form, as pnnx writes").split("\n")
    if lines[0].strip() != MAGIC:
        raise StepError(f"{path.name}:1: expected {MAGIC}, got {lines[0][:20]!r}", "give a .param file in text form")
    counts = _integers(lines[1].split() if len(lines) > 1 else [])
    if len(counts) != 2:
        raise StepError(f"{path.name}:2: expected the numbers of layers and blobs, got {''.join(lines[1:2])!r}", _FIX)
    layers: list[Layer] = []
    names: set[str] = set()
    made: set[str] = set()
    for number, line in enumerate(lines[2:], start=3):
        if not line.strip():
            continue
        try:
            layer = _parse_layer(line)
            _check_names(layer, names, made)
        except ValueError as error:
            raise StepError(f"{path.name}:{number}: {error}", _FIX) from None
        layers.append(layer)
    found = ParamFile(tuple(layers))
    for what, said, there in (("layers", counts[0], len(layers)), ("blobs", counts[1], len(found.blobs))):
        if said != there:
            raise StepError(f"{path.name}:2: says {said} {what}, contains {there}", _FIX)
    return found


def write_param(file: ParamFile, path: Path) -> None:
    """Write a `.param` file in pnnx's form: a file that pnnx wrote comes back byte for byte.

    Raises StepError for a parameter that the format cannot represent.
    """
    lines = [MAGIC, f"{len(file.layers)} {len(file.blobs)}"]
    for layer in file.layers:
        words = [f"{layer.type:<24}", f"{layer.name:<24}", str(len(layer.inputs)), str(len(layer.outputs))]
        words += [*layer.inputs, *layer.outputs]
        try:
            words += [_param_text(key, value) for key, value in layer.params.items()]
        except ValueError as error:
            location = f"{path.name}: layer '{layer.name}' ({layer.type})"
            raise StepError(f"{location}: {error}", "give it a value that ncnn reads") from None
        lines.append(" ".join(words))
    path.write_bytes(("\n".join(lines) + "\n").encode())


def require_layers(file: ParamFile, names: Iterable[str], location: str) -> None:
    """Raise StepError for the first of the `names` that no layer has, with the nearest name of a layer."""
    there = {layer.name for layer in file.layers}
    for name in names:
        if name not in there:
            near = get_close_matches(name, there, n=1)
            raise StepError(
                f"{location}: no layer is called '{name}'",
                f"did you mean '{near[0]}'?" if near else "see the .param file",
            )


def _parse_layer(line: str) -> Layer:
    words = line.split(maxsplit=4)
    counts = _integers(words[2:4])
    if len(counts) != 2 or min(counts) < 0:
        raise ValueError("expected a type, a name, and the numbers of inputs and outputs")
    blobs = words[4].split(maxsplit=sum(counts)) if len(words) > 4 else []
    if len(blobs) < sum(counts):
        raise ValueError(f"names {len(blobs)} blobs, needs {sum(counts)}")
    text = blobs[sum(counts)] if len(blobs) > sum(counts) else ""
    inputs, outputs = blobs[: counts[0]], blobs[counts[0] : sum(counts)]
    return Layer(words[0], words[1], tuple(inputs), tuple(outputs), _parse_params(text))


def _parse_params(text: str) -> dict[int, Value]:
    params: dict[int, Value] = {}
    position = 0
    while position < len(text):
        found = _PARAM.match(text, position)
        if found is None:
            raise ValueError(f"expected id=value, got {text[position : position + 20]!r}")
        position = found.end()
        number = int(found[1])
        key = FIRST_ARRAY_ID - number if number <= FIRST_ARRAY_ID else number
        if not 0 <= key < MOST_PARAMS or key in params:
            raise ValueError(f"param {number}: is not an id, or is there twice")
        params[key] = _parse_array(found[2]) if number <= FIRST_ARRAY_ID else _parse_value(found[2])
    return params


def _parse_value(text: str) -> Value:
    if text.startswith('"'):
        return text.strip('"')
    if text[:1].isalpha():
        return text
    if "," in text:  # the newer form of an array
        return tuple(_parse_number(part) for part in text.split(",") if part)
    return _parse_number(text)


def _parse_array(text: str) -> tuple[Number, ...]:
    length, *parts = text.split(",")
    if _integers([length]) != [len(parts)]:
        raise ValueError(f"expected an array of {length}, got {len(parts)} elements")
    return tuple(_parse_number(part) for part in parts)


def _parse_number(text: str) -> Number:
    # ncnn tells a float by its point or its exponent.
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"expected a number, got {text[:40]!r}")
    number = float(text) if any(mark in text for mark in ".eE") else int(text)
    if abs(number) > (LARGEST_FLOAT if isinstance(number, float) else LARGEST_INTEGER):
        raise ValueError(f"{text} does not fit into 32 bits")
    return number


def _check_names(layer: Layer, names: set[str], made: set[str]) -> None:
    if layer.name in names:
        raise ValueError(f"two layers are called '{layer.name}'")
    for blob in layer.inputs:
        if blob not in made:
            raise ValueError(f"layer '{layer.name}' reads '{blob}', which no layer before it writes")
    for blob in layer.outputs:
        if blob in made:
            raise ValueError(f"two layers write blob '{blob}'")
        made.add(blob)
    names.add(layer.name)


def _integers(words: list[str]) -> list[int]:
    return [int(word) for word in words if _INTEGER.fullmatch(word)]


def _param_text(key: int, value: Value) -> str:
    if not 0 <= key < MOST_PARAMS:
        raise ValueError(f"param {key}: ids are from 0 to {MOST_PARAMS - 1}")
    if isinstance(value, tuple):
        return ",".join([f"{FIRST_ARRAY_ID - key}={len(value)}", *(number_text(each) for each in value)])
    if isinstance(value, str):
        if any(mark in value for mark in '"\n'):
            raise ValueError(f"param {key}: {value!r} contains a quote or a line end")
        return f"{key}={value}" if _WORD.fullmatch(value) else f'{key}="{value}"'
    return f"{key}={number_text(value)}"


def number_text(number: Number) -> str:
    """Format a number as pnnx does, with the fewest of its usual digits that give the same float32.

    A float always has a point or an exponent, by which ncnn tells it from an integer. ncnn reads at most 15 characters,
    and at most 9 digits after the point.
    """
    if isinstance(number, int):
        return str(number)
    exact = struct.unpack("<f", struct.pack("<f", number))[0]
    if exact == 0:
        return "0.0"
    plain = 1e-4 <= abs(exact) < 1e6
    text = f"{exact:g}" if plain else f"{exact:e}"
    if struct.pack("<f", float(text)) != struct.pack("<f", exact):
        text = f"{exact:.9g}"
        if not plain or len(text.partition(".")[2]) > 9:
            text = f"{exact:.8e}"
    if plain and not any(mark in text for mark in ".e"):
        return f"{text}.0"
    return re.sub(r"e\+?(-?)0*(\d)", r"e\1\2", text)
