"""Blocks and windows cover a weight in order, each one contiguous, with the right channels."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from onnx import helper, numpy_helper

from artifacts.graph.quantization import weight_grid
from artifacts.graph.quantization.weight_grid import Shape, WeightBlocks, blocks_of, shape_by_channel, windows_of
from artifacts.graph.tensor_content import FileRange, InTensor

Float32 = npt.NDArray[np.float32]

SHAPES: list[Shape] = [
    (1, 1, 5000),
    (7, 300, 1),
    (1, 40, 90),
    (3, 5, 700),
    (2, 2000, 1),
    (4, 2000, 1),
    (1, 3, 2500),
    (2, 3, 1),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_grid, "BLOCK_ELEMENTS", 1000)
    monkeypatch.setattr(weight_grid, "WINDOW_BYTES", 10_000)
    monkeypatch.setattr(weight_grid, "WHOLE_BYTES", 4 * 5000)


@pytest.mark.parametrize(
    ("dims", "axis", "shape"),
    [((4, 5), None, (1, 1, 20)), ((4, 5), 0, (1, 4, 5)), ((4, 5), 1, (4, 5, 1)), ((2, 3, 4, 5), 1, (2, 3, 20))],
)
def test_the_axis_of_the_channels_is_in_the_middle(dims: tuple[int, ...], axis: int | None, shape: Shape) -> None:
    assert shape_by_channel(dims, axis) == shape


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("inline", [True, False])
def test_every_number_is_read_once_in_order_with_its_channel(tmp_path: Path, shape: Shape, inline: bool) -> None:
    weight = np.arange(prod(shape), dtype=np.float32)
    (tmp_path / "data").write_bytes(bytes(5000) + weight.tobytes() + bytes(100))
    tensor = InTensor(helper.make_tensor("w", 1, [weight.size], weight.tolist()))
    content = tensor if inline else FileRange(tmp_path / "data", 5000, weight.nbytes)
    channels = np.broadcast_to(np.arange(shape[1])[:, np.newaxis], shape).ravel()
    blocks = WeightBlocks(content, shape)
    assert len(list(blocks)) == len(list(blocks_of(shape)))
    found: list[Float32] = []
    for block, values in blocks:
        assert block.start == sum(part.size for part in found)
        assert values.size <= 1000
        assert values.shape == block.shape
        assert not values.flags.writeable
        said = np.broadcast_to(np.arange(shape[1])[block.channels, np.newaxis], block.shape).ravel()
        np.testing.assert_array_equal(said, channels[block.start : block.start + values.size])
        found.append(values.ravel())
    assert all(4 * sum(prod(block.shape) for block in window) <= 10_000 for window in windows_of(shape))
    np.testing.assert_array_equal(np.concatenate(found), weight)


def test_blocks_are_as_large_as_may_be() -> None:
    assert [block.shape for block in blocks_of((7, 300, 1))] == [(3, 300, 1), (3, 300, 1), (1, 300, 1)]
    assert [block.shape for block in blocks_of((1, 40, 90))] == [(1, 11, 90)] * 3 + [(1, 7, 90)]
    assert [block.shape for block in blocks_of((1, 1, 2500))] == [(1, 1, 1000), (1, 1, 1000), (1, 1, 500)]
    assert [len(window) for window in windows_of((1, 1, 4500))] == [2, 3]


def test_a_tensor_with_raw_bytes_is_read_too() -> None:
    tensor = InTensor(numpy_helper.from_array(np.arange(6, dtype=np.float32)))
    ((_, values),) = WeightBlocks(tensor, (2, 3, 1))
    np.testing.assert_array_equal(values[..., 0], [[0, 1, 2], [3, 4, 5]])
