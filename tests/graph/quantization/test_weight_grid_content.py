"""Numbers are rounded to their nearest levels, the same in int8 and in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from artifacts.errors import StepError
from artifacts.graph.quantization.weight_grid import (
    SHIFT,
    AsymmetricInt8Content,
    Grid,
    RoundedContent,
    Shape,
    largest_error,
)
from artifacts.graph.tensor_content import FileRange

Array = npt.NDArray[Any]

SHAPES: list[Shape] = [(1, 1, 1_500_001), (700, 1000, 1), (1, 1000, 700), (3, 2, 150_000)]


def weight(folder: Path, shape: Shape) -> tuple[Array, FileRange]:
    """Channels of unlike size and mean, with some zeros; it starts at no page of the file."""
    random = np.random.default_rng(0)
    scales = np.linspace(0.01, 3, shape[1], dtype=np.float32)[:, np.newaxis]
    values = random.standard_normal(shape, np.float32) * scales + scales / 3
    values.reshape(-1)[:: 1000 + shape[1] // 2] = 0
    (folder / "data").write_bytes(bytes(4160) + values.tobytes())
    return values, FileRange(folder / "data", 4160, values.nbytes)


def by_numpy(values: Array, grid: Grid) -> Array:
    """How many steps each number is from 0, as plainly as can be."""
    counts: Array = np.rint(values / grid.scales[:, np.newaxis])
    return counts


def bytes_of(content: AsymmetricInt8Content | RoundedContent) -> bytes:
    found = b"".join(bytes(piece) for piece in content.chunks())
    assert len(found) == content.nbytes
    return found


def known(content: AsymmetricInt8Content | RoundedContent) -> Grid:
    assert content.grid is not None
    return content.grid


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_numbers_count_steps_from_the_zero_point(tmp_path: Path, shape: Shape) -> None:
    values, source = weight(tmp_path, shape)
    content = AsymmetricInt8Content("w", source, shape)
    found = np.frombuffer(bytes_of(content), np.int8).reshape(shape).astype(np.int64)
    grid = known(content)
    zeros = grid.zero_points.astype(np.int64)[:, np.newaxis]
    np.testing.assert_array_equal(found - zeros, by_numpy(values, grid))
    assert found.min() == -128
    assert found.max() >= 126
    assert (found - zeros)[values == 0].tolist() == [0] * int((values == 0).sum())


@pytest.mark.parametrize("count", [4, 256, 65536])
@pytest.mark.parametrize("shape", SHAPES)
def test_rounded_numbers_are_levels(tmp_path: Path, shape: Shape, count: int) -> None:
    values, source = weight(tmp_path, shape)
    content = RoundedContent("w", source, shape, count)
    found = np.frombuffer(bytes_of(content), np.float32).reshape(shape)
    grid = known(content)
    expected = by_numpy(values, grid) * grid.scales[:, np.newaxis]
    np.testing.assert_array_equal(found, expected, strict=True)
    assert content.moved
    for channel in range(0, shape[1], 333):
        assert np.unique(found[:, channel]).size <= count
    assert not np.signbit(found[found == 0]).any()


def test_both_hold_the_same_numbers_bit_for_bit(tmp_path: Path) -> None:
    shape = (1, 1000, 700)
    _, source = weight(tmp_path, shape)
    content = AsymmetricInt8Content("w", source, shape)
    numbers = np.frombuffer(bytes_of(content), np.int8).reshape(shape)
    grid = known(content)
    steps, zeros = grid.scales[:, np.newaxis], grid.zero_points[:, np.newaxis]
    dequantized = (numbers.astype(np.int32) - zeros).astype(np.float32) * steps
    assert dequantized.tobytes() == bytes_of(RoundedContent("w", source, shape, 256))


def test_numbers_at_levels_do_not_move(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.float32).repeat(2000) / 4
    (tmp_path / "data").write_bytes(values.tobytes())
    source, shape = FileRange(tmp_path / "data", 0, values.nbytes), (1, 1, values.size)
    content = RoundedContent("w", source, shape, 256)
    assert bytes_of(content) == values.tobytes()
    assert not content.moved


def test_adding_the_shift_rounds_as_rint_does() -> None:
    halves = np.arange(-131071, 131072, dtype=np.float32) / 2
    around = np.concatenate([halves, np.nextafter(halves, np.float32(-1e9)), np.nextafter(halves, np.float32(1e9))])
    np.testing.assert_array_equal(around + SHIFT - SHIFT, np.rint(around))


def test_the_largest_error_is_that_of_the_coarsest_weight(tmp_path: Path) -> None:
    contents = []
    for name, largest in (("fine", 1), ("coarse", 510)):
        values = np.linspace(0, largest, 3000, dtype=np.float32)
        (tmp_path / name).write_bytes(values.tobytes())
        contents.append(RoundedContent(name, FileRange(tmp_path / name, 0, values.nbytes), (1, 1, 3000), 256))
        off = np.abs(np.frombuffer(bytes_of(contents[-1]), np.float32) - values).max()
    assert largest_error(contents) == 1
    assert 0.99 < off <= 1


def test_a_weight_without_levels_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(np.array([1, 2, np.nan], np.float32).tobytes())
    source = FileRange(tmp_path / "data", 0, 12)
    for content in (AsymmetricInt8Content("w", source, (1, 1, 3)), RoundedContent("w", source, (1, 1, 3), 256)):
        with pytest.raises(StepError, match="weight 'w': has NaN or infinity"):
            bytes_of(content)
