from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from artifacts.errors import ArtifactsError, RecipeError, StepError, StoreError, disk_error, printable


def test_an_error_is_two_lines_the_fact_and_the_next_move() -> None:
    assert str(StepError("w has 3 rows", "give it 4")) == "w has 3 rows\n  fix: give it 4"


@pytest.mark.parametrize("kind", [RecipeError, StepError, StoreError])
def test_every_mistake_of_a_user_is_of_one_family(kind: type[ArtifactsError]) -> None:
    error = kind("fact", "fix")
    assert isinstance(error, ArtifactsError)
    assert (error.fact, error.fix) == ("fact", "fix")


@pytest.mark.parametrize(
    ("number", "fact"),
    [(errno.ENOSPC, "the disk below '{}' is full"), (errno.EDQUOT, "the disk quota below '{}' is used up")],
)
def test_a_full_disk_is_reported_with_the_folder_of_the_file(tmp_path: Path, number: int, fact: str) -> None:
    cache, elsewhere = tmp_path / "cache", tmp_path / "dist" / "small"
    for folder in (cache, elsewhere):
        folder.mkdir(parents=True)
    for named, folder in (
        (None, cache),
        (cache / "actions" / "a.json", cache),
        (elsewhere / "flat", elsewhere),
        (elsewhere / ".gone" / "new" / "model.onnx", elsewhere),
        (elsewhere, elsewhere),
    ):
        error = disk_error(OSError(number, os.strerror(number), str(named) if named else None), cache)
        assert isinstance(error, StoreError)
        assert error.fact == fact.format(folder)
        assert error.fix.startswith("free some space")


def test_a_file_that_is_too_long_is_reported_with_the_limit(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    on_fat = disk_error(OSError(errno.EFBIG, "File too large"), tmp_path)
    assert on_fat is not None
    assert "longer than its file system allows (on FAT32: 4294967295 bytes)" in on_fat.fact
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with (tmp_path / "f").open("wb", buffering=0) as file:
            file.write(bytes(100_000))
            with pytest.raises(OSError, match="File too large") as caught:
                file.write(b"more")
        said = [disk_error(caught.value, tmp_path), disk_error(RuntimeError("a library's own words"), tmp_path)]
        (tmp_path / "f").write_bytes(b"short")
        assert disk_error(RuntimeError("a bug"), tmp_path) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for error in said:
        assert error is not None
        assert error.fact.startswith(f"a file below '{tmp_path}' became longer than the 100000 bytes that this process")
        assert error.fix == "run `ulimit -f unlimited`, then run again"


def test_too_many_open_files_are_reported_with_the_limit(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
        with pytest.raises(OSError, match="Too many open files") as caught:
            os.open(tmp_path, os.O_RDONLY)
        error = disk_error(caught.value, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert error is not None
    assert error.fact == "this process has 3 open files, which is its limit"
    assert "ulimit -n 4096" in error.fix


REFUSED = [errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.ESTALE, errno.ETXTBSY,
           errno.ENFILE]  # fmt: skip


@pytest.mark.parametrize("number", REFUSED)
def test_an_error_of_the_disk_is_reported_with_the_file(tmp_path: Path, number: int) -> None:
    error = disk_error(OSError(number, os.strerror(number), "/x/y"), tmp_path)
    assert error is not None
    assert error.fact == f"'/x/y': {os.strerror(number)}"
    nameless = disk_error(OSError(number, os.strerror(number)), tmp_path)
    assert nameless is not None
    assert nameless.fact.startswith(f"a file below '{tmp_path}': ")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "x"), OSError("no number"), RuntimeError("a bug"), ValueError()]
)
def test_an_error_that_the_disk_did_not_cause_is_none(tmp_path: Path, error: Exception) -> None:
    assert disk_error(error, tmp_path) is None


def test_a_folder_that_does_not_exist_yet_is_judged_by_the_disk_above_it(tmp_path: Path) -> None:
    assert disk_error(RuntimeError(), tmp_path / "not" / "yet") is None
    assert disk_error(RuntimeError(), tmp_path / ("x" * 300)) is None
    too_long = disk_error(OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), tmp_path / ("x" * 300))
    assert too_long is not None
    assert too_long.fact == f"'{'x' * 60}...{'x' * 17}': File name too long"


HOSTILE = "a\nb\r\x1b[31m\x7f\x85\x9b\u202e\u2066\u2028\u2029\ud800\udcff\0\t\ufeff"


@pytest.mark.parametrize("kind", [RecipeError, StepError, StoreError])
def test_an_error_is_two_printable_lines_whatever_it_quotes(kind: type[ArtifactsError]) -> None:
    error = kind(f"x.yaml:1:1: '{HOSTILE}' is wrong", f"rename '{HOSTILE}'")
    assert len(str(error).splitlines()) == 2
    assert error.fact.isprintable()
    assert error.fix.isprintable()
    assert error.fact.startswith(r"x.yaml:1:1: 'a\nb\r\x1b[31m\x7f\x85\x9b\u202e\u2066\u2028\u2029\ud800\udcff\x00\t")
    error.fact.encode()  # no lone surrogate is left


def test_printable_text_is_left_as_it_is() -> None:
    for text in ("", "a b", "Ωä中🙂 – 1 × 2", "C:\\x1b", "it's", "[red]x[/red]", "x" * 1000):
        assert printable(text) == text


@pytest.mark.parametrize(
    "text",
    [HOSTILE * 200, f"'{'x' * 500}'", "x" * 5000, f"'{HOSTILE * 9}' and '{'y' * 90}'", "'\u202e" * 999, "'" * 2000],
    ids=lambda text: repr(text[:12]),
)
def test_a_text_made_printable_twice_is_the_same(text: str) -> None:
    once = printable(text)
    assert printable(once) == once
    assert len(once) <= 1000


def test_a_long_fact_keeps_its_location_and_its_end() -> None:
    fact = StepError(f"x.yaml:3:4: {'word ' * 10_000}is too long", "cut it").fact
    assert len(fact) == 1000
    assert fact.startswith("x.yaml:3:4: word")
    assert fact.endswith("is too long")


def test_a_long_quoted_value_is_cut_and_the_text_around_it_is_not() -> None:
    fact = StepError(f"the step's input 'a' is not '{'v' * 100_000}', as it's written", "x").fact
    assert fact == f"the step's input 'a' is not '{'v' * 60}...{'v' * 17}', as it's written"
    assert StepError(f"'{'v' * 80}'", "x").fact == f"'{'v' * 80}'"
    path = "/".join(["folder"] * 50)
    assert StepError(f"no file at '{path}'", "x").fact == f"no file at '{path}'", "a path is needed whole"


def test_prose_between_two_apostrophes_is_not_cut() -> None:
    fact = f"the step's file {'has many words ' * 10}and the users' input"
    assert StepError(fact, "x").fact == fact


def test_a_file_system_without_a_size_is_not_full() -> None:
    assert disk_error(RuntimeError(), Path("/proc/here")) is None
