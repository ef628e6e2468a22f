"""Ways to break a folder that a step reads, by what is in it: each changes a copy of the folder in place."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnx import ModelProto, TensorProto

from faults import broken_onnx, onnx_changes

Damage = Callable[[Path, random.Random], None]

DEEP = 100_000
JSON_TEXTS: dict[str, bytes] = {
    "deep_lists": b"[" * DEEP + b"]" * DEEP,
    "deep_objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "not_utf8": b'{"a": "\xff\xfe"}',
    "list": b"[1, 2]",
    "number": b"17",
    "null": b"null",
    "empty": b"",
    "nan": b"NaN",
    "long_number": b'{"blank_id": ' + b"9" * 10_000 + b"}",
    "cut": b'{"blank_id": 1, "dura',
    "bom": b"\xef\xbb\xbf{}",
    "surrogate": rb'{"id": "\ud800", "blank_id": "\ud800"}',
    "twice": b'{"blank_id": 1, "blank_id": 2}',
}
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**12, 10**30, 1e308, float("nan"), float("inf"), "", "x", "\x1b[31m\r\n", "\ud800", [], [[]],
    ["x"], {}, {"a": {}}, "../../etc/passwd", "/etc/passwd", 0.5,
)  # fmt: skip


def one(folder: Path, *patterns: str) -> Path:
    """The first file of these names."""
    return next(path for pattern in patterns for path in sorted(folder.rglob(pattern)) if path.is_file())


def onnx_change(name: str) -> Damage:
    """A change of `broken_onnx`."""

    def damage(folder: Path, rng: random.Random) -> None:
        path = one(folder, "*.onnx")
        model = ModelProto.FromString(path.read_bytes())
        broken_onnx.apply(broken_onnx.CHANGES[name], model, rng, path)

    return damage


def cut(pattern: str) -> Damage:
    """A file that ends early."""

    def damage(folder: Path, rng: random.Random) -> None:
        path = one(folder, pattern)
        size = path.stat().st_size
        os.truncate(path, rng.choice((0, 1, 7, size // 2, size - 1, size - 4, rng.randrange(size + 1))) % (size + 1))

    return damage


def flip(pattern: str, *, head: int = 1 << 62) -> Damage:
    """A file with some other bits, within its first `head` bytes."""

    def damage(folder: Path, rng: random.Random) -> None:
        path = one(folder, pattern)
        data = bytearray(path.read_bytes())
        for _ in range(rng.choice((1, 2, 8, 64))):
            data[rng.randrange(min(len(data), head))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)

    return damage


def flip_graph(folder: Path, rng: random.Random) -> None:
    """Other bits in what is not the weights: their bytes would only be other numbers."""
    path = one(folder, "*.onnx")
    data = path.read_bytes()
    model = ModelProto.FromString(data)
    start = model.graph.initializer[0].raw_data[:32] if model.graph.initializer else b""
    end = data.find(start) if start else -1
    flip("*.onnx", head=end if end > 64 else len(data))(folder, rng)


def replace(pattern: str, content: bytes) -> Damage:
    """A file of other bytes."""
    return lambda folder, rng: (one(folder, pattern).write_bytes(content), None)[1]


def instead(pattern: str, make: Callable[[Path], object]) -> Damage:
    """Something else in the place of a file."""

    def damage(folder: Path, rng: random.Random) -> None:
        path = one(folder, pattern)
        path.unlink()
        make(path)

    return damage


def _sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100_000_000)


def places(pattern: str) -> dict[str, Damage]:
    """What may lie in the place of a file of any format."""
    return {
        "cut": cut(pattern),
        "flipped": flip(pattern),
        "empty": replace(pattern, b""),
        "text": replace(pattern, b"<html><title>404</title>\n" * 50),
        "noise": lambda folder, rng: (one(folder, pattern).write_bytes(rng.randbytes(5000)), None)[1],
        "missing": instead(pattern, lambda path: None),
        "folder": instead(pattern, lambda path: path.mkdir()),
        "zeros": instead(pattern, _sparse_file),
        "fifo": instead(pattern, os.mkfifo),
        "device": instead(pattern, lambda path: path.symlink_to("/dev/zero")),
        "link_out": instead(pattern, lambda path: path.symlink_to("/etc/passwd")),
        "link_loop": instead(pattern, lambda path: path.symlink_to(path.name)),
    }


def external(**entries: str | None) -> Damage:
    """A reference of a tensor to its data file with other entries; None takes one away."""

    def damage(folder: Path, rng: random.Random) -> None:
        path = one(folder, "*.onnx")
        model = ModelProto.FromString(path.read_bytes())
        tensor = rng.choice([each for each in model.graph.initializer if each.external_data])
        found = {entry.key: entry.value for entry in tensor.external_data}
        del tensor.external_data[:]
        for key, value in (found | entries).items():
            if value is not None:
                tensor.external_data.add(key=key, value=value)
        path.write_bytes(model.SerializeToString().replace(b"PLACEHOLDER-OF-16", onnx_changes.NOT_UTF8))

    return damage


def _external_model(change: Callable[[TensorProto, TensorProto], object]) -> Damage:
    def damage(folder: Path, rng: random.Random) -> None:
        path = one(folder, "*.onnx")
        model = ModelProto.FromString(path.read_bytes())
        first, second = [each for each in model.graph.initializer if each.external_data][:2]
        change(first, second)
        path.write_bytes(model.SerializeToString())

    return damage


def _external_link(target: str) -> Damage:
    def damage(folder: Path, rng: random.Random) -> None:
        path = next(path for path in folder.iterdir() if ".data" in path.name)
        path.unlink()
        path.symlink_to(target)

    return damage


def _external_fifo(folder: Path, rng: random.Random) -> None:
    os.mkfifo(folder / "pipe")
    external(location="pipe")(folder, rng)


EXTERNAL: dict[str, Damage] = {
    **{
        f"location_{name}": external(location=location)
        for name, location in {
            "up": "../../../../../../etc/passwd", "absolute": "/etc/passwd", "device": "/dev/zero", "empty": "",
            "itself": ".", "windows": "..\\..\\x", "drive": "C:/x", "nul": "a\0b", "long": "x" * 5000,
            "deep": "x/" * 3000 + "x", "control": "\x1b[31m\r\nx", "not_utf8": "PLACEHOLDER-OF-16", "own": "model.onnx",
        }.items()
    },
    **{
        f"offset_{name}": external(offset=offset)
        for name, offset in {
            "negative": "-1", "1e12": "1000000000000", "beyond_int64": "9" * 30, "of_10000_digits": "9" * 10_000,
            "word": "x", "arabic": "\u0663", "float": "1.5", "hex": "0x10", "space": " 1", "empty": "", "odd": "1",
            "superscript": "\u00b2", "underscore": "1_0",
        }.items()
    },
    **{
        f"length_{name}": external(length=length)
        for name, length in {
            "negative": "-1", "1e12": "1000000000000", "of_10000_digits": "9" * 10_000, "word": "x", "short": "1",
            "zero": "0",
        }.items()
    },
    "keys_missing": external(location=None, offset=None, length=None),
    "location_missing": external(location=None),
    "key_unknown": external(checksum="x" * 100, basepath="/etc"),
    "keys_twice": _external_model(
        lambda first, second: first.external_data.extend([first.external_data[0], second.external_data[1]])
    ),
    "overlapping": _external_model(
        lambda first, second: first.external_data[1].CopyFrom(second.external_data[1])
    ),
    "not_said_external": _external_model(lambda first, second: first.ClearField("data_location")),
    "inline_said_external": _external_model(lambda first, second: first.ClearField("external_data")),
    "external_and_inline": _external_model(lambda first, second: setattr(first, "raw_data", b"1234")),
    "dims_1e12": _external_model(lambda first, second: first.dims.__setitem__(slice(None), [10**12])),
    "strings": _external_model(lambda first, second: setattr(first, "data_type", TensorProto.STRING)),
    "link_out": _external_link("/etc/passwd"),
    "link_device": _external_link("/dev/zero"),
    "link_loop": _external_link("loop"),
    "fifo": _external_fifo,
    "cut": lambda folder, rng: os.truncate(next(path for path in folder.iterdir() if ".data" in path.name), 1000),
    "missing": lambda folder, rng: next(path for path in folder.iterdir() if ".data" in path.name).unlink(),
}  # fmt: skip

ONNX: dict[str, Damage] = {
    **{f"file_{name}": damage for name, damage in places("*.onnx").items()},
    **{f"flipped_graph_{number}": flip_graph for number in range(4)},
    "two_models": lambda folder, rng: ((folder / "other.onnx").write_bytes(b""), None)[1],
    **{name: onnx_change(name) for name in broken_onnx.CHANGES},
}


def json_values(pattern: str) -> Damage:
    """A JSON file with another value somewhere in it."""

    def damage(folder: Path, rng: random.Random) -> None:
        path = one(folder, pattern)
        value = json.loads(path.read_text())
        inner = value
        while True:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            key = rng.choice(keys)
            if not (isinstance(inner[key], (dict, list)) and inner[key]) or rng.random() < 0.4:
                break
            inner = inner[key]
        if rng.random() < 0.3:
            del inner[key]
        else:
            inner[key] = rng.choice(VALUES)
        path.write_text(json.dumps(value))

    return damage


def json_file(pattern: str) -> dict[str, Damage]:
    """What may be wrong with a JSON file."""
    return {
        **{f"file_{name}": damage for name, damage in places(pattern).items()},
        **{f"text_{name}": replace(pattern, text) for name, text in JSON_TEXTS.items()},
        **{f"value_{number}": json_values(pattern) for number in range(16)},
    }
