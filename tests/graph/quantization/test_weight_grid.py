"""Grid span a channel with 0 among them, and no number is further from one than half a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from onnx import numpy_helper

from artifacts.errors import StepError
from artifacts.graph.quantization.weight_grid import Grid, Shape, WeightBlocks, find_grid, span_of
from artifacts.graph.tensor_content import FileRange, InTensor

Float32 = npt.NDArray[np.float32]


def grid_of(values: object, count: int = 256) -> Grid:
    """The grid of channels that are the rows of `values`."""
    rows = np.atleast_2d(np.array(values, np.float32))
    return find_grid(rows.min(axis=1), rows.max(axis=1), count)


def nearest(values: Float32, grid: Grid) -> Float32:
    counts: Float32 = np.rint(values / grid.scales[:, np.newaxis])
    return counts


SPANS = [
    (-1, 1),
    (-1, 2),
    (0, 1),
    (-3, 0),
    (-0.1, 77.7),
    (2, 5),
    (-5, -2),
    (-1e-30, 3e-30),
    (-1.7e38, 1.7e38),
    (0, 3e38),
]


@pytest.mark.parametrize("count", [4, 5, 16, 255, 256, 1000, 65536])
def test_no_more_levels_are_used_than_there_are_and_none_is_further_than_half_a_step(count: int) -> None:
    random = np.random.default_rng(0)
    pairs = [*SPANS, *np.sort(random.standard_normal((200, 2)), axis=1).tolist()]
    low, high = (np.array(ends, np.float32) for ends in zip(*pairs, strict=True))
    values = np.sort((low + (high - low) * random.random((5000, len(pairs)))).astype(np.float32), axis=0)
    values[0], values[-1] = low, high
    grid = find_grid(low, high, count)
    counts = nearest(values.T, grid)
    assert (counts.min(axis=1) >= grid.lowest).all()
    assert (counts.max(axis=1) < grid.lowest + count).all()
    assert (grid.lowest <= 0).all()
    assert (grid.lowest + count > 0).all()
    off = np.abs(counts.astype(np.float64) * grid.scales[:, np.newaxis] - values.T)
    assert (off.max(axis=1) <= grid.scales * (0.5 + 2**-24 * count)).all()
    wanted = (np.maximum(high, 0).astype(np.float64) - np.minimum(low, 0)) / (count - 1)
    np.testing.assert_allclose(grid.scales, wanted, rtol=3e-6)


def test_a_symmetric_span_ends_between_levels_and_still_takes_no_more_than_256() -> None:
    grid = grid_of([-127.5, 127.5])
    np.testing.assert_array_equal(nearest(np.array([[-127.5, 127.5]], np.float32), grid), [[-127, 127]])
    assert 1 < grid.scales[0] < 1.00001


@pytest.mark.parametrize("number", [0, 7.3, -7.3, 1e-40, -3e38])
def test_a_uniform_channel_is_kept_exactly(number: float) -> None:
    grid = grid_of([[number] * 3, [-1, 0, 2]])
    assert grid.uniform.tolist() == [True, False]
    assert grid.scales[0] > 0
    assert np.rint(np.float32(number) / grid.scales[0]) * grid.scales[0] == np.float32(number)
    assert grid.largest_error == grid.scales[1] / 2


def test_of_channels_so_small_that_float32_has_no_steps_for_them_zero_is_left() -> None:
    grid = grid_of([[-1e-40, 2e-40], [-1, 1]])
    assert grid.scales[0] == np.finfo(np.float32).smallest_normal
    assert (np.rint(np.array([-1e-40, 2e-40], np.float32) / grid.scales[0]) == 0).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0, 1], [0, np.nan]], "has NaN or infinity"),
        ([[0, 1], [-np.inf, 0]], "has NaN or infinity"),
        ([[1e-40, 2e-40], [0, 0]], "all would become one number"),
        ([[-2.98e38, 3.4028235e38]], "too far for float32"),
    ],
)
def test_numbers_without_levels_are_refused(values: list[list[float]], message: str) -> None:
    with pytest.raises(StepError, match=message):
        grid_of(values, 4 if "too far" in message else 256)


@pytest.mark.parametrize("shape", [(1, 1, 600_000), (1200, 500, 1), (1, 500, 1200), (3, 2, 100_000), (1, 2, 300_000)])
@pytest.mark.parametrize("inline", [True, False])
def test_each_channel_is_spanned(tmp_path: Path, shape: Shape, inline: bool) -> None:
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    (tmp_path / "data").write_bytes(values.tobytes())
    content = InTensor(numpy_helper.from_array(values)) if inline else FileRange(tmp_path / "data", 0, values.nbytes)
    least, largest = span_of(WeightBlocks(content, shape), shape[1])
    np.testing.assert_array_equal(least, values.min(axis=(0, 2)), strict=True)
    np.testing.assert_array_equal(largest, values.max(axis=(0, 2)), strict=True)
    values[-1, -1, -1] = np.nan
    (tmp_path / "data").write_bytes(values.tobytes())
    if not inline:
        assert np.isnan(span_of(WeightBlocks(content, shape), shape[1])[0]).tolist() == [
            *[False] * (shape[1] - 1),
            True,
        ]
