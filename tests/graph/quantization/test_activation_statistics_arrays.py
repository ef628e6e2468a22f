from __future__ import annotations

import contextlib
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.graph.quantization.activation_statistics import read_arrays

FIX = "calibrate again"


def head(shape: str, dtype: str = "<f4", order: str = "False") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    text += b" " * (63 - (len(text) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def archive(path: Path, content: bytes, how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", how) as file:
        file.writestr("a.npy", content)


def test_arrays_that_savez_wrote_come_back(tmp_path: Path) -> None:
    rows, one = np.arange(6, dtype=np.float32).reshape(2, 3), np.float32(2.5)
    np.savez(tmp_path / "x.npz", allow_pickle=False, rows=rows, one=one, columns=rows.T)
    found = read_arrays(tmp_path / "x.npz", ["one", "rows"], FIX)
    assert list(found) == ["one", "rows"]
    assert found["one"].shape == ()
    assert float(found["one"]) == 2.5
    assert np.array_equal(found["rows"], rows)
    assert np.array_equal(read_arrays(tmp_path / "x.npz", ["columns"], FIX)["columns"], rows.T)


@pytest.mark.parametrize(
    ("make", "fact"),
    [
        (lambda path: None, "x.npz: is missing"),
        (lambda path: path.write_bytes(b""), "x.npz: not an archive of arrays"),
        (lambda path: path.write_bytes(head("(2,)") + bytes(8)), "x.npz: not an archive of arrays"),
        (lambda path: np.savez(path, b=np.float32(1)), "x.npz: array 'a': is missing"),
        (
            lambda path: np.savez(path, a=np.array([{}], object)),
            "x.npz: array 'a': is object [1], must be float32",
        ),
        (lambda path: np.savez(path, a=np.zeros(2)), "x.npz: array 'a': is float64 [2], must be float32"),
        (lambda path: np.savez_compressed(path, a=np.zeros(2, np.float32)), "x.npz: array 'a': is compressed"),
        (lambda path: archive(path, b"text"), "x.npz: not an archive of arrays"),
        (
            lambda path: archive(path, head("(1000000000000,)")),
            "x.npz: array 'a': has 0 bytes, its shape [1000000000000] needs 4000000000000",
        ),
        (lambda path: archive(path, head("(2,)") + bytes(12)), "x.npz: array 'a': has 12 bytes, its shape [2] needs 8"),
        (lambda path: archive(path, head("(-1,)")), "x.npz: array 'a': is float32 [-1], must be float32"),
        (lambda path: archive(path, head("(__import__('os'),)")), "x.npz: not an archive of arrays"),
        (
            lambda path: archive(path, head("(2,)") + bytes(10**8), zipfile.ZIP_DEFLATED),
            "x.npz: array 'a': is compressed",
        ),
    ],
)
def test_an_archive_of_anything_else_is_refused(tmp_path: Path, make: Callable[[Path], object], fact: str) -> None:
    make(tmp_path / "x.npz")
    with pytest.raises(StepError) as raised:
        read_arrays(tmp_path / "x.npz", ["a"], FIX)
    assert raised.value.fact.startswith(fact)
    assert raised.value.fix == FIX


@pytest.mark.parametrize("position", [30, 60, 140, 200, -30])
def test_a_flipped_byte_is_an_error_or_harmless(tmp_path: Path, position: int) -> None:
    values = np.arange(16, dtype=np.float32)
    np.savez(tmp_path / "x.npz", a=values)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[position] ^= 0x40
    (tmp_path / "x.npz").write_bytes(data)
    with contextlib.suppress(StepError):
        assert np.array_equal(read_arrays(tmp_path / "x.npz", ["a"], FIX)["a"], values)
