from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from artifacts.errors import ArtifactsError, RecipeError, StepError, StoreError, disk_error


def test_an_error_is_two_lines_the_fact_and_the_next_move() -> None:
    assert str(StepError("w has 3 rows", "give it 4")) == "w has 3 rows\n  fix: give it 4"


@pytest.mark.parametrize("kind", [RecipeError, StepError, StoreError])
def test_every_mistake_of_a_user_is_of_one_family(kind: type[ArtifactsError]) -> None:
    error = kind("fact", "fix")
    assert isinstance(error, ArtifactsError)
    assert (error.fact, error.fix) == ("fact", "fix")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_its_place(tmp_path: Path, number: int) -> None:
    error = disk_error(OSError(number, os.strerror(number)), tmp_path)
    assert isinstance(error, StoreError)
    assert error.fact == f"the disk below '{tmp_path}' is full"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR])
def test_a_disk_that_refuses_is_told_with_the_file(tmp_path: Path, number: int) -> None:
    error = disk_error(OSError(number, os.strerror(number), "/x/y"), tmp_path)
    assert error is not None
    assert error.fact == f"'/x/y': {os.strerror(number)}"
    nameless = disk_error(OSError(number, os.strerror(number)), tmp_path)
    assert nameless is not None
    assert nameless.fact.startswith(f"a file below '{tmp_path}': ")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "x"), OSError("no number"), RuntimeError("a bug"), ValueError()]
)
def test_what_the_disk_is_not_to_blame_for_is_left_alone(tmp_path: Path, error: Exception) -> None:
    assert disk_error(error, tmp_path) is None


def test_a_folder_that_is_not_there_yet_is_judged_by_the_disk_above_it(tmp_path: Path) -> None:
    assert disk_error(RuntimeError(), tmp_path / "not" / "yet") is None
