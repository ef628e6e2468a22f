from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from artifacts.errors import StoreError
from artifacts.files.locks import held, lock_file, open_lock


def test_many_threads_hold_a_lock_one_at_a_time_and_leave_no_file(tmp_path: Path) -> None:
    inside: list[int] = []
    counts: list[int] = []

    def hold(number: int) -> None:
        for _ in range(25):
            with held(tmp_path / "locks" / "k"):
                inside.append(number)
                counts.append(len(inside))
                time.sleep(0)
                inside.remove(number)

    threads = [threading.Thread(target=hold, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(counts), max(counts)) == (150, 1)
    assert list((tmp_path / "locks").iterdir()) == []


def test_a_waiter_for_a_removed_lock_file_holds_the_lock_of_the_new_one(tmp_path: Path) -> None:
    order: list[str] = []

    def hold(name: str) -> None:
        with held(tmp_path / "k"):
            order.append(f"+{name}")
            time.sleep(0.1)
            order.append(f"-{name}")

    threads = [threading.Thread(target=hold, args=(str(index),)) for index in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.03)
    for thread in threads:
        thread.join()
    assert [name[1:] for name in order[::2]] == [name[1:] for name in order[1::2]]


def test_the_lock_file_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("")
    with held(tmp_path / "k", lambda: pytest.fail("nobody holds it")):
        pass
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF])
def test_a_file_system_without_locks_is_an_error_in_two_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(_file: object, _how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)  # no file system here is without
    with pytest.raises(StoreError) as caught, held(tmp_path / "k"):
        pass
    assert caught.value.fact == f"files in '{tmp_path}' cannot be locked: {os.strerror(number)}"
    assert caught.value.fix == "name a folder on a local disk as 'cache:' in pipeline.yaml"


def test_a_lock_can_be_tried_without_waiting(tmp_path: Path) -> None:
    with (tmp_path / "k").open("w") as one, (tmp_path / "k").open("w") as other:
        assert lock_file(one, tmp_path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not lock_file(other, tmp_path, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_pipe_in_the_place_of_a_lock_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with held(tmp_path / "lock"):
        pass
    assert not (tmp_path / "lock").exists()


def test_a_lock_in_a_folder_that_cannot_be_made_is_an_error() -> None:
    with pytest.raises(StoreError, match="no folder can be made at '/proc/here': No such file or directory"):
        open_lock(Path("/proc/here/lock"))
