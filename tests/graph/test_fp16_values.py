"""Numbers become float16 as numpy rounds them, within the bounds that onnxconverter-common keeps."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import numpy.typing as npt
import pytest
from onnxconverter_common.float16 import convert_np_to_float16

from artifacts.graph import fp16_values
from artifacts.graph.fp16_values import RUN_ELEMENTS, Fp16Content, Fp16Rounding
from artifacts.graph.tensor_content import CHUNK_BYTES, FileRange

Float32 = npt.NDArray[np.float32]


def bits(values: npt.NDArray[np.float16]) -> npt.NDArray[np.uint16]:
    return values.view(np.uint16)


def by_the_library(values: Float32, low: float, high: float) -> npt.NDArray[np.float16]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted: npt.NDArray[np.float16] = convert_np_to_float16(values, low, high)
    return converted


def every_rounding_case() -> Float32:
    """Float32 values around each float16 and each middle between two: in all, 2^16 * 10, both signs, no NaN."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middles = (halves[:-1] + halves[1:]) / 2
    around = np.concatenate([halves, middles])
    neighbours = [np.nextafter(around, np.float32(end)) for end in (-np.inf, np.inf)]
    positive = np.concatenate([around, *neighbours])
    return np.concatenate([positive, -positive])


def test_every_tie_and_neighbour_rounds_as_numpy_does() -> None:
    values = every_rounding_case()
    inside = values[(np.abs(values) >= 1e-7) & (np.abs(values) <= 65504) | (values == 0)]
    assert inside.size > 370_000
    found = Fp16Rounding(1e-7, 65504).convert(inside)
    np.testing.assert_array_equal(bits(found), bits(inside.astype(np.float16)))


@pytest.mark.parametrize(("low", "high"), [(1e-7, 1e4), (5.96e-8, 65504), (1e-3, 1.0), (0, 65504)])
def test_bounds_are_those_of_the_library(low: float, high: float) -> None:
    random = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    special = np.array([0, -0.0, np.inf, -np.inf, low, -low, high, -high, 1e-45, 3e38], np.float32)
    values = np.concatenate([special, every_rounding_case(), random[~np.isnan(random)]])
    rounding = Fp16Rounding(low, high)
    np.testing.assert_array_equal(bits(rounding.convert(values)), bits(by_the_library(values, low, high)))
    magnitudes = np.abs(values)
    assert rounding.raised == ((magnitudes > 0) & (magnitudes < np.float32(low))).sum()
    assert rounding.lowered == ((magnitudes > np.float32(high)) & np.isfinite(values)).sum()


@pytest.mark.parametrize("strays", [0, 1, 3, 200, 5000])
def test_numbers_beyond_the_bounds_are_found_wherever_they_lie(strays: int) -> None:
    random = np.random.default_rng(strays)
    values = random.uniform(0.5, 1, 5 * RUN_ELEMENTS + 7).astype(np.float32)
    # The last one is in a run of its own length.
    places = np.append(random.choice(values.size, strays, replace=False), values.size - 1)
    values[places] = random.choice(np.array([3e-8, -3e-8, 2e4, -2e4, 0], np.float32), places.size)
    rounding = Fp16Rounding(1e-7, 1e4)
    np.testing.assert_array_equal(bits(rounding.convert(values)), bits(by_the_library(values, 1e-7, 1e4)))
    assert rounding.raised == (np.abs(values) == np.float32(3e-8)).sum()
    assert rounding.lowered == (np.abs(values) == 2e4).sum()


def test_nan_stays_nan_and_shapes_stay() -> None:
    rounding = Fp16Rounding(1e-7, 1e4)
    assert np.isnan(rounding.convert(np.array([[np.nan, 1.0]], np.float32))).tolist() == [[True, False]]
    for shape in ((), (0, 3), (2, 3, 4)):
        assert rounding.convert(np.ones(shape, np.float32)).shape == shape
    strided = np.arange(12, dtype=np.float32).reshape(3, 4).T
    np.testing.assert_array_equal(rounding.convert(strided), strided)


def test_a_file_is_converted_in_chunks(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(CHUNK_BYTES, dtype=np.float32)[: 2 * CHUNK_BYTES // 4 + 3]
    (tmp_path / "data").write_bytes(b"head" + values.tobytes())
    content = Fp16Content(FileRange(tmp_path / "data", 4, values.nbytes), Fp16Rounding(1e-7, 1e4))
    pieces = [bytes(piece) for piece in content.chunks()]
    assert len(pieces) == 3
    assert content.nbytes == values.nbytes // 2
    assert b"".join(pieces) == by_the_library(values, 1e-7, 1e4).tobytes()


def test_two_files_are_converted_side_by_side(tmp_path: Path) -> None:
    """In one thread, a piece of each in turn: none is overwritten by the other's."""
    rounding = Fp16Rounding(1e-7, 1e4)
    arrays = [np.full(CHUNK_BYTES, number, np.float32) for number in (1, 2)]
    contents = []
    for array in arrays:
        path = tmp_path / str(array[0])
        path.write_bytes(array.tobytes())
        contents.append(Fp16Content(FileRange(path, 0, array.nbytes), rounding))
    for ones, twos in zip(*(content.chunks() for content in contents), strict=True):
        assert set(np.frombuffer(ones, np.float16)) == {1}
        assert set(np.frombuffer(twos, np.float16)) == {2}


def test_threads_that_start_together_convert_alike(tmp_path: Path) -> None:
    """Where nothing was converted before them: each used to make a session, and run the other's memory on it."""
    values = np.random.default_rng(0).standard_normal(1000, dtype=np.float32)
    (tmp_path / "data").write_bytes(values.tobytes())
    start = Barrier(4)

    def convert(content: Fp16Content) -> bytes:
        start.wait()
        return b"".join(bytes(piece) for piece in content.chunks())

    for _ in range(20):
        fp16_values._cast_session.cache_clear()
        rounding = Fp16Rounding(1e-7, 1e4)
        contents = [Fp16Content(FileRange(tmp_path / "data", 0, values.nbytes), rounding)] * 4
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(convert, contents)) == {by_the_library(values, 1e-7, 1e4).tobytes()}
