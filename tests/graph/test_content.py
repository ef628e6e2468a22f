"""Bytes come in pieces, from a file or from the protobuf, and are the tensor's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from artifacts.graph.content import PIECE_BYTES, FileRange, stored_content
from artifacts.graph.external_data import Reference, refer


def _joined(content: FileRange) -> bytes:
    return b"".join(bytes(piece) for piece in content.pieces())


@pytest.mark.parametrize("nbytes", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES + 5])
def test_a_range_of_a_file_comes_whole_and_in_pieces_that_fit(tmp_path: Path, nbytes: int) -> None:
    data = np.random.default_rng(1).bytes(nbytes + 30)
    (tmp_path / "data").write_bytes(data)
    content = FileRange(tmp_path / "data", 13, nbytes)
    assert _joined(content) == data[13 : 13 + nbytes]
    assert all(len(piece) <= PIECE_BYTES for piece in content.pieces())


def test_a_file_that_became_shorter_is_no_content(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"short")
    with pytest.raises(EOFError, match="'data' became shorter"):
        _joined(FileRange(tmp_path / "data", 0, 6))


def test_a_tensor_is_found_where_it_is(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    raw = numpy_helper.from_array(values, "raw")
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [6], values.tolist())
    outside = numpy_helper.from_array(values, "outside")
    (tmp_path / "w.data").write_bytes(b"1234" + values.tobytes())
    refer(outside, Reference("w.data", 4, values.nbytes))
    for tensor in (raw, typed, outside):
        content = stored_content(tensor, tmp_path)
        assert content.nbytes == values.nbytes
        assert b"".join(bytes(piece) for piece in content.pieces()) == values.tobytes()
