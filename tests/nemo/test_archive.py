from __future__ import annotations

import gzip
import io
import tarfile
import time
import tracemalloc
from pathlib import Path

import pytest

from artifacts.errors import StepError
from artifacts.nemo.archive import CONFIG, WEIGHTS, BoundedReader, BoundError, open_archive
from artifacts.untrusted.trust import trust
from faults.hostile_archives import archives
from faults.hostile_checkpoints import Case

FILES = {CONFIG: b"target: x\n", WEIGHTS: bytes(range(256)) * 20, "tokenizer.model": b"pieces" * 100}


def _archive(prefix: str = "./") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(_folder(prefix))
        for name, content in FILES.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _folder(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name or ".")
    member.type = tarfile.DIRTYPE
    return member


def _read_all(checkpoint: Path, folder: Path) -> dict[str, bytes]:
    with open_archive(checkpoint) as archive:
        for name in FILES:
            archive.extract(name, folder)
        assert archive.read(CONFIG, 100) == FILES[CONFIG]
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
@pytest.mark.parametrize("prefix", ["./", ""])
def test_the_members_come_out_as_they_went_in(tmp_path: Path, prefix: str, pack: type[bytes]) -> None:
    checkpoint, folder = tmp_path / "a.nemo", tmp_path / "out"
    folder.mkdir()
    checkpoint.write_bytes(pack(_archive(prefix)))
    assert _read_all(checkpoint, folder) == FILES


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_an_archive_cut_before_its_end_mark_is_an_error_of_two_lines(tmp_path: Path, pack: type[bytes]) -> None:
    whole = pack(_archive())
    with tarfile.open(fileobj=io.BytesIO(_archive())) as tar:
        tar.getmembers()
        end_mark = tar.offset
    last = end_mark if pack is bytes else len(whole) - 1
    checkpoint, folder = tmp_path / "a.nemo", tmp_path / "out"
    folder.mkdir()
    for size in range(0, last, 37):
        checkpoint.write_bytes(whole[:size])
        with pytest.raises(StepError) as raised:
            _read_all(checkpoint, folder)
        assert raised.value.fact.startswith("a.nemo: ")
        assert raised.value.fix.startswith("fetch it again")
        for path in folder.iterdir():
            path.unlink()


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"<html>" * 500])
def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    checkpoint = tmp_path / "a.nemo"
    checkpoint.write_bytes(content)
    with (
        pytest.raises(StepError, match=r"a\.nemo: not a \.nemo checkpoint: it is not a tar archive"),
        open_archive(checkpoint),
    ):
        pass


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"a folder, where a \.nemo file is needed"), open_archive(tmp_path):
        pass


def test_a_member_that_is_not_there_is_named(tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.nemo"
    checkpoint.write_bytes(_archive())
    with open_archive(checkpoint) as archive, pytest.raises(StepError, match=r"no 'vocab\.txt' in the archive"):
        archive.read("vocab.txt", 100)


ARCHIVES = list(archives())


@pytest.mark.parametrize("case", ARCHIVES, ids=[case.name for case in ARCHIVES])
def test_an_archive_that_is_not_a_checkpoint_is_refused_at_once_and_in_little_memory(
    case: Case, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    checkpoint, folder = tmp_path / "h.nemo", tmp_path / "out"
    folder.mkdir()
    case.build(tiny_checkpoint, checkpoint, tmp_path)
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(StepError) as raised, open_archive(checkpoint) as archive:
        archive.extract(WEIGHTS, folder)
    assert time.monotonic() - began < 20
    assert tracemalloc.get_traced_memory()[1] < 16_000_000
    tracemalloc.stop()
    assert case.told in raised.value.fact
    assert raised.value.fact.isprintable()
    assert len(str(raised.value)) < 400
    assert not [path for path in folder.iterdir() if path.name != WEIGHTS]


def test_what_a_header_says_of_owners_and_times_is_of_no_interest(tmp_path: Path) -> None:
    checkpoint, folder = tmp_path / "a.nemo", tmp_path / "out"
    folder.mkdir()
    with tarfile.open(checkpoint, "w") as tar:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname, member.uid = len(content), 1234567890.123, "ünser" * 30, 10**9
            tar.addfile(member, io.BytesIO(content))
    assert _read_all(checkpoint, folder) == FILES


def test_a_member_that_is_larger_than_its_reader_takes_is_named(tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.nemo"
    checkpoint.write_bytes(_archive())
    with (
        open_archive(checkpoint) as archive,
        pytest.raises(StepError, match=r"'tokenizer\.model' has 600 bytes, at most"),
    ):
        archive.read("tokenizer.model", 599)


def test_an_archive_knows_whether_it_is_trusted(tmp_path: Path) -> None:
    trust(tmp_path / "b.nemo")
    for name, is_trusted in (("a.nemo", False), ("b.nemo", True)):
        (tmp_path / name).write_bytes(_archive())
        with open_archive(tmp_path / name) as archive:
            assert archive.trusted is is_trusted


def test_headers_have_a_budget_and_contents_have_none() -> None:
    reader = BoundedReader(io.BytesIO(bytes(5000)), None, 1024)
    assert [reader.read(512), reader.read(512)] == [bytes(512)] * 2
    with pytest.raises(BoundError, match="too many members"):
        reader.read(1)
    reader.header_bytes_left = None
    assert len(reader.read(10_000)) == 5000 - 1024


def test_one_header_has_a_bound_of_its_own() -> None:
    reader = BoundedReader(io.BytesIO(bytes(5000)), None, 10**6)
    with pytest.raises(BoundError, match="too long a header"):
        reader.read(513)


@pytest.mark.parametrize("end", [100, 512])
def test_nothing_is_read_beyond_the_end(end: int) -> None:
    reader = BoundedReader(io.BytesIO(bytes(5000)), end, 10**6)
    assert len(reader.read(end)) == end
    assert reader.tell() == end
    for act in (lambda: reader.read(1), lambda: reader.seek(end + 1)):
        with pytest.raises(BoundError, match=f"unpacks to more than {end} bytes"):
            act()
    assert reader.seek(end - 1) == end - 1
