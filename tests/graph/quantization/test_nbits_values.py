"""Blocks of 4 and 8-bit numbers are what the documented scheme makes of a weight, to the bit, and nothing is lost."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from artifacts.errors import StepError
from artifacts.graph.quantization.nbits import (
    BlockFormat,
    BlockQuantizer,
    Blocks,
    NBitsContent,
    quantize_blocks,
    read_floats,
)
from artifacts.graph.quantization.weight_matmuls import weight_matmuls
from artifacts.graph.tensor_content import FileRange, InTensor

Array = np.ndarray[Any, Any]


def by_hand(weight: Array, form: BlockFormat) -> tuple[Array, Array, Array]:
    """The scheme in numpy, unpacked: integers [N, K], scales [N, blocks], zero points [N, blocks]."""
    rows, columns = weight.shape
    middle, highest = np.float32(2 ** (form.bits - 1)), np.float32(2**form.bits - 1)
    integers = np.zeros((columns, rows), np.uint8)
    scales, zero_points = [], []
    for start in range(0, rows, form.block_size):
        block = weight[start : start + form.block_size].T
        low, high = block.min(1), block.max(1)
        if form.symmetric:
            scale = -np.where(abs(high) > abs(low), high, low) / middle
            zero = np.full(columns, middle)
        else:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
            scale = (high - low) / highest
            zero = half_up(np.divide(-low, scale, out=np.zeros_like(low), where=scale != 0))
        factor = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
        found = half_up(block * factor[:, None] + zero[:, None])
        integers[:, start : start + form.block_size] = found.clip(0, highest)
        scales.append(scale)
        zero_points.append(zero)
    return integers, np.stack(scales, 1), np.stack(zero_points, 1).astype(np.uint8)


def half_up(values: Array) -> Array:
    """C's roundf: halves go away from zero."""
    rounded: Array = np.copysign(np.floor(np.abs(values) + np.float32(0.5)), values)
    return rounded


def unpacked(packed: Array, bits: int, count: int) -> Array:
    """Numbers along the last axis; of 4 bits the first is in the low half of a byte."""
    flat = packed.reshape(len(packed), -1)
    if bits == 4:
        flat = np.stack([flat & 15, flat >> 4], -1).reshape(len(packed), -1)
    return flat[:, :count]


def real_weights(encoder: Path) -> list[Array]:
    (path,) = encoder.glob("*.onnx")
    return [numpy_helper.to_array(found.weight) for found in weight_matmuls(onnx.load(path))]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_real_weights_come_out_bit_for_bit_as_the_scheme_says(encoder_fp32: Path, bits: Any, symmetric: bool) -> None:
    form = BlockFormat(bits, 32, symmetric)
    for weight in real_weights(encoder_fp32):
        check(quantize_blocks(weight, form), weight, form)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block_size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("rows", [1, 31, 256, 300])
def test_channels_that_fill_no_block_are_padded_with_zero_bytes(
    encoder_fp32: Path, bits: Any, symmetric: bool, block_size: int, rows: int
) -> None:
    form = BlockFormat(bits, block_size, symmetric)
    weight = np.ascontiguousarray(real_weights(encoder_fp32)[0][:rows, :5])
    blocks = quantize_blocks(weight, form)
    check(blocks, weight, form)
    padding = unpacked(blocks.packed, bits, blocks.packed.size)[:, rows + rows % (8 // bits) :]
    assert not padding.any()


def check(blocks: Blocks, weight: Array, form: BlockFormat) -> None:
    rows, columns = weight.shape
    integers, scales, zero_points = by_hand(weight, form)
    for part in ("packed", "scales", "zero_points"):
        assert getattr(blocks, part).shape == form.dims(part, (rows, columns))  # type: ignore[arg-type]
    np.testing.assert_array_equal(unpacked(blocks.packed, form.bits, rows), integers)
    np.testing.assert_array_equal(blocks.scales, scales)
    if not form.symmetric:
        np.testing.assert_array_equal(unpacked(blocks.zero_points, form.bits, scales.shape[1]), zero_points)


def test_no_number_moves_by_more_than_half_a_step_or_a_whole_one_at_the_far_end(encoder_fp32: Path) -> None:
    weight = real_weights(encoder_fp32)[0]
    for form, steps in ((BlockFormat(8, 32, False), 0.51), (BlockFormat(8, 32, True), 1.01)):
        blocks = quantize_blocks(weight, form)
        zero = 128.0 if form.symmetric else blocks.zero_points[..., None].astype(np.float64)
        restored = (blocks.packed - zero) * blocks.scales[..., None]
        error = abs(restored.reshape(weight.shape[::-1]).T - weight)
        assert (error <= steps * abs(blocks.scales).repeat(32, 1).T).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ([1, np.nan], "has NaN or infinity"),
        ([1, -np.inf], "has NaN or infinity"),
        ([1e-40, 0], "quantised with the scale "),
        ([1e-45, 0], "quantised with the scale -?0.0"),
    ],
)
def test_numbers_without_a_scale_are_refused(numbers: list[float], message: str, symmetric: bool) -> None:
    weight = np.zeros((64, 3), np.float32)
    weight[40:42, 1] = numbers
    with pytest.raises(StepError, match=message):
        quantize_blocks(weight, BlockFormat(8, 32, symmetric))


def test_a_range_that_overflows_is_refused() -> None:
    with pytest.raises(StepError, match="quantised with the scale inf"):
        quantize_blocks(np.array([[3e38], [-3e38]], np.float32), BlockFormat(8, 32, symmetric=False))


def test_zeros_stay_zeros() -> None:
    for symmetric in (True, False):
        blocks = quantize_blocks(np.zeros((64, 3), np.float32), BlockFormat(8, 32, symmetric))
        assert not blocks.scales.any()


def test_the_parts_of_a_weight_are_quantised_once_and_in_any_order(
    encoder_fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from artifacts.graph.quantization import nbits

    runs: list[tuple[int, ...]] = []

    def counted(weight: Array, form: BlockFormat) -> Blocks:
        runs.append(weight.shape)
        return quantize_blocks(weight, form)

    monkeypatch.setattr(nbits, "quantize_blocks", counted)
    form = BlockFormat(4, 32, symmetric=False)
    weights = dict(zip("ab", real_weights(encoder_fp32), strict=False))
    quantizer = BlockQuantizer(form, 2)
    contents = {}
    for name, weight in weights.items():
        (tmp_path / name).write_bytes(b"before" + weight.tobytes())
        source = FileRange(tmp_path / name, 6, weight.nbytes)
        for part in ("packed", "scales", "zero_points"):
            contents[name, part] = NBitsContent(name, part, source, weight.shape, quantizer)  # type: ignore[arg-type]
    for order, times in ((list(contents), 2), (sorted(contents, key=lambda key: key[1]), 6)):
        quantizer._blocks = None
        runs.clear()
        for name, part in order:
            data = b"".join(bytes(piece) for piece in contents[name, part].chunks())
            assert data == getattr(quantize_blocks(weights[name], form), part).tobytes()
            assert contents[name, part].nbytes == len(data)
        assert len(runs) == times


def test_a_weight_that_cannot_be_quantised_is_named() -> None:
    source = InTensor(numpy_helper.from_array(np.full((4, 4), np.nan, np.float32)))
    content = NBitsContent("w", "scales", source, (4, 4), BlockQuantizer(BlockFormat(8, 32, symmetric=True), 1))
    with pytest.raises(StepError, match="weight 'w': has NaN or infinity"):
        next(content.chunks())


def test_floats_are_read_from_a_file_into_one_buffer(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal(3 << 18, np.float32)
    (tmp_path / "data").write_bytes(bytes(64) + values.tobytes())
    tracemalloc.start()
    found = read_floats(FileRange(tmp_path / "data", 64, values.nbytes))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, values)
    assert peak < values.nbytes + 100_000
    np.testing.assert_array_equal(read_floats(InTensor(numpy_helper.from_array(values))), values)
