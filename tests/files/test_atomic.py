from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from artifacts.files.atomic import (
    naming,
    remove,
    remove_tree,
    remove_unfinished,
    unfinished_folder,
    write_atomically,
)


def test_what_is_written_atomically_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "f.json"
    write_atomically(path, b"one" * 1000)
    stop = threading.Event()
    seen: set[bytes] = set()

    def watch() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for index in range(50):
        write_atomically(path, (b"two" if index % 2 else b"one") * 1000)
    stop.set()
    watcher.join()
    assert seen <= {b"one" * 1000, b"two" * 1000}
    assert [file.name for file in path.parent.iterdir()] == ["f.json"]
    assert path.stat().st_mode & 0o777 == 0o644


def leave(folder: Path, *names: str) -> list[Path]:
    """Files that a killed run left."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text("left")
    return [folder / name for name in names]


def test_what_a_killed_run_left_on_its_way_is_removed_by_the_next_and_nothing_else_is(tmp_path: Path) -> None:
    left = leave(tmp_path, ".x.lock.yaml.abcd1234.unfinished", ".x.lock.yaml._z9_0000.unfinished")
    others = leave(
        tmp_path,
        ".x.lock.yaml.swp",
        ".x.lock.yaml.20261128",
        ".y.lock.yaml.abcd1234.unfinished",
        ".x.lock.yaml.more.abcd1234.unfinished",
    )
    write_atomically(tmp_path / "x.lock.yaml", b"new")
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_a_folder_on_its_way_is_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / ".t.abcd1234.unfinished" / "new").mkdir(parents=True)
    leave(tmp_path / ".t.abcd1234.unfinished" / "new", "f")
    with unfinished_folder(tmp_path / "t") as folder:
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]
        remove_unfinished(tmp_path / "other")
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_tree_a_file_and_a_link_to_nowhere_are_removed(tmp_path: Path) -> None:
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    leave(tmp_path / "tree" / "inner", "f")
    (tmp_path / "tree" / "inner" / "f").chmod(0o444)
    (tmp_path / "file").write_text("file")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("tree", "file", "link", "nothing"):
        remove_tree(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_names_no_file_is_given_a_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full") as caught, naming(tmp_path / "f"):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.filename == str(tmp_path / "f")
    with pytest.raises(FileNotFoundError) as found, naming(tmp_path / "f"):
        os.stat(str(tmp_path / "none"))  # noqa: PTH116  # as a library does
    assert found.value.filename == str(tmp_path / "none")


def test_leftovers_of_a_step_are_removed_at_any_depth_and_with_any_modes(tmp_path: Path) -> None:
    kept, top = tmp_path / "kept", tmp_path / "top"
    kept.mkdir()
    (kept / "file").touch()
    top.mkdir()
    (top / "link").symlink_to(kept)
    # Beyond Python's recursion limit, and beyond the longest path.
    code = "import os\nfor _ in range(1100):\n  os.mkdir('deep'); os.chdir('deep')\nos.mkdir('closed', 0)"
    subprocess.run([sys.executable, "-c", code], cwd=top, check=True)
    remove(top)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept"]
    remove(top)
