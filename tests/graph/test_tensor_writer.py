"""Tensors are written whole to data files within a budget, however their bytes are copied."""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from artifacts.graph.external_data import reference_of
from artifacts.graph.model_file import load_graph
from artifacts.graph.tensor_content import CHUNK_BYTES, Content, FileRange
from artifacts.graph.tensor_writer import aligned, stored_tensors, write_data_files, write_files
from artifacts.graph.tensors import is_external


def model_of(*sizes: int) -> ModelProto:
    model = ModelProto()
    for index, size in enumerate(sizes):
        values = np.full(size, index + 1, np.uint8)
        model.graph.initializer.append(numpy_helper.from_array(values, str(index)))
    return model


def files_of(model: ModelProto, folder: Path, budget: int | None) -> dict[str, list[str]]:
    """Which tensors are in which file, after checking that each is whole in its place."""
    summaries = write_data_files(stored_tensors(model, folder), folder, lambda index: f"data.{index}", budget)
    files: dict[str, list[str]] = {summary.name: [] for summary in summaries}
    for index, tensor in enumerate(model.graph.initializer):
        if is_external(tensor):
            reference = reference_of(tensor)
            data = (folder / reference.location).read_bytes()[reference.offset_bytes :]
            assert data[: reference.length_bytes] == bytes([index + 1]) * tensor.dims[0]
            files[reference.location].append(tensor.name)
    assert [(s.tensors, s.nbytes) for s in summaries] == [
        (len(names), (folder / name).stat().st_size) for name, names in files.items()
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    return files


@pytest.mark.parametrize(
    ("sizes", "budget", "groups"),
    [
        ((2000, 2000, 2000), None, ["012"]),
        ((2048, 2048, 2048), 4096, ["01", "2"]),
        ((2000, 2048, 2048), 4095, ["0", "1", "2"]),  # 2000 bytes end in a gap of 48
        ((2000, 5000, 2000, 2000), 4096, ["0", "1", "23"]),  # larger than the budget: alone
        ((5000, 2000), 4096, ["0", "1"]),
        ((1024, 1023, 1024), 2048, ["02"]),  # small ones stay inline
        ((1024, 1024), 1, ["0", "1"]),
        ((1023,), 1, []),
        ((), 1, []),
    ],
)
def test_files_are_filled_in_order_up_to_the_budget(
    tmp_path: Path, sizes: tuple[int, ...], budget: int | None, groups: list[str]
) -> None:
    files = files_of(model_of(*sizes), tmp_path, budget)
    assert files == {f"data.{index}": list(group) for index, group in enumerate(groups)}


def test_no_file_but_that_of_a_single_tensor_exceeds_the_budget(tmp_path: Path) -> None:
    sizes = np.random.default_rng(0).integers(1, 9000, 200).tolist()
    files = files_of(model_of(*sizes), tmp_path, 8192)
    assert len(files) > 20
    for name, tensors in files.items():
        assert len(tensors) == 1 or (tmp_path / name).stat().st_size <= 8192
    assert sum(map(len, files.values())) == sum(size >= 1024 for size in sizes)


@pytest.mark.parametrize(
    ("tensor", "moves"),
    [
        (np.arange(200, dtype=np.int64), False),
        (np.arange(1 << 18, dtype=np.int32), False),
        (np.arange(1 << 18, dtype=np.int64), True),  # a table
        (np.arange(400, dtype=np.int64).reshape(2, 200), True),
        (np.arange(400, dtype=np.float32), True),
    ],
)
def test_what_shape_inference_may_read_is_in_the_protobuf(tmp_path: Path, tensor: np.ndarray, moves: bool) -> None:
    model = ModelProto()
    model.graph.initializer.append(numpy_helper.from_array(tensor, "t"))
    write_data_files(stored_tensors(model, tmp_path), tmp_path, lambda _: "data")
    assert is_external(model.graph.initializer[0]) == moves


def test_external_tensors_that_are_small_or_cannot_move_are_embedded(places_file: Path, tmp_path: Path) -> None:
    model = load_graph(places_file)
    (places_file.parent / "loose").write_bytes(bytes(range(256)) * 8)
    small = model.graph.initializer.add(name="small external", data_type=TensorProto.UINT8, dims=[256])
    fixed = model.graph.sparse_initializer.add().values
    fixed.CopyFrom(TensorProto(name="fixed external", data_type=TensorProto.UINT8, dims=[2048]))
    for tensor in (small, fixed):
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="loose")
    write_data_files(stored_tensors(model, places_file.parent), tmp_path, "data.{}".format)
    assert small == numpy_helper.from_array(np.arange(256, dtype=np.uint8), "small external")
    assert fixed == numpy_helper.from_array(np.tile(np.arange(256, dtype=np.uint8), 8), "fixed external")


@dataclass(frozen=True)
class Bytes:
    data: bytes

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterator[memoryview]:
        yield memoryview(self.data)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(np.random.default_rng(0).bytes(3 * CHUNK_BYTES + 17))
    return path


def test_the_next_tensor_starts_at_a_cache_line() -> None:
    assert [aligned(offset) for offset in (0, 1, 63, 64, 65)] == [0, 64, 64, 64, 128]


def test_contents_are_written_at_their_offsets_with_zeros_between(source: Path, tmp_path: Path) -> None:
    whole = source.read_bytes()
    long = 2 * CHUNK_BYTES + 5
    placed: list[tuple[int, Content]] = [
        (0, FileRange(source, 7, 64)),
        (64, FileRange(source, 71, 100)),  # follows in both files
        (192, FileRange(source, 171, 20)),  # follows in one
        (256, Bytes(b"in memory")),
        (265, FileRange(source, 100, long)),
        (265 + long, FileRange(tmp_path / "other", 0, 3)),
    ]
    (tmp_path / "other").write_bytes(b"end")
    write_files({tmp_path / "a": placed, tmp_path / "b": placed[:1], tmp_path / "c": []})
    expected = whole[7:171] + bytes(28) + whole[171:191] + bytes(44) + b"in memory" + whole[100 : 100 + long] + b"end"
    assert (tmp_path / "a").read_bytes() == expected
    assert (tmp_path / "b").read_bytes() == whole[7:71]
    assert (tmp_path / "c").read_bytes() == b""


@pytest.mark.parametrize("refusal", [errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP])
@pytest.mark.parametrize("copied_before", [0, 4096])
def test_bytes_that_the_kernel_does_not_copy_are_copied_by_the_process(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int, copied_before: int
) -> None:
    real = os.copy_file_range

    def refuse(src: int, dst: int, count: int, offset_src: int, offset_dst: int) -> int:
        if copied_before and offset_dst == 3:
            return real(src, dst, min(count, copied_before), offset_src, offset_dst)
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    nbytes = 2 * CHUNK_BYTES
    write_files({tmp_path / "a": [(3, FileRange(source, 9, nbytes))]})
    assert (tmp_path / "a").read_bytes() == bytes(3) + source.read_bytes()[9 : 9 + nbytes]


@pytest.mark.parametrize("files", [1, 3])
def test_a_full_disk_is_not_swallowed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    def full(*_: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match="No space left"):
        write_files({tmp_path / str(index): [(0, FileRange(source, 0, 9))] for index in range(files)})


def test_a_file_that_shrinks_meanwhile_is_an_error(source: Path, tmp_path: Path) -> None:
    content = FileRange(source, 0, source.stat().st_size)
    os.truncate(source, 100)
    with pytest.raises(EOFError, match="'source' became shorter"):
        write_files({tmp_path / "a": [(0, content)]})


@pytest.mark.parametrize("others", [[], ["a"], ["a", "b"]])
def test_no_file_is_overwritten(source: Path, tmp_path: Path, others: list[str]) -> None:
    before = source.read_bytes()
    with pytest.raises(FileExistsError):
        write_files({path: [(0, Bytes(b"new"))] for path in (*(tmp_path / name for name in others), source)})
    assert source.read_bytes() == before


@dataclass(frozen=True)
class Meeting:
    """Bytes that are there once as many contents as there are parties are read at the same time."""

    barrier: Barrier

    @property
    def nbytes(self) -> int:
        return 1

    def chunks(self) -> Iterator[memoryview]:
        self.barrier.wait(timeout=60)
        yield memoryview(b"m")


def test_of_one_file_two_contents_are_computed_at_the_same_time(tmp_path: Path) -> None:
    barrier = Barrier(2)
    write_files({tmp_path / "a": [(0, Meeting(barrier)), (1, Meeting(barrier))]})
    assert (tmp_path / "a").read_bytes() == b"mm"


def test_after_a_content_that_fails_the_others_are_not_computed(tmp_path: Path) -> None:
    read: list[int] = []

    @dataclass(frozen=True)
    class Numbered:
        number: int
        nbytes: int = 1

        def chunks(self) -> Iterator[memoryview]:
            read.append(self.number)
            if self.number == 0:
                raise ValueError("it is damaged")
            time.sleep(0.01)
            yield memoryview(b"n")

    with pytest.raises(ValueError, match="it is damaged"):
        write_files({tmp_path / "a": [(number, Numbered(number)) for number in range(1000)]})
    assert len(read) < 100


def test_more_files_are_written_than_may_be_open_at_once(source: Path, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(int(link.name) for link in Path("/proc/self/fd").iterdir()) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 20, hard))
    try:
        write_files({tmp_path / str(index): [(0, FileRange(source, index, 9))] for index in range(50)})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    whole = source.read_bytes()
    assert [(tmp_path / str(index)).read_bytes() for index in range(50)] == [whole[i : i + 9] for i in range(50)]


def test_two_files_are_written_at_the_same_time(tmp_path: Path) -> None:
    barrier = Barrier(2)
    write_files({tmp_path / name: [(0, Meeting(barrier))] for name in "ab"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == b"m"
