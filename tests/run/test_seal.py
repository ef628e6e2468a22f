from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from artifacts.run import seal as module
from artifacts.run.seal import UnsealableError, seal


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Output of a step: a file, and one in a folder."""
    (tmp_path / "out" / "inner").mkdir(parents=True)
    (tmp_path / "out" / "a.bin").write_bytes(b"a")
    (tmp_path / "out" / "inner" / "b.bin").write_bytes(b"bb")
    return tmp_path / "out"


def test_files_are_named_by_their_bytes_and_made_read_only(out: Path) -> None:
    assert seal(out) == {
        "a.bin": (1, hashlib.sha256(b"a").hexdigest()),
        "inner/b.bin": (2, hashlib.sha256(b"bb").hexdigest()),
    }
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*.bin")} == {0o444}


@pytest.mark.parametrize("kind", ["link", "link to a folder", "second name", "pipe"])
def test_anything_but_a_file_of_its_own_is_refused_and_left(out: Path, kind: str) -> None:
    victim = out.parent / "victim"
    victim.write_bytes(b"victim")
    victim.chmod(0o600)
    odd = out / "odd"
    match kind:
        case "link":
            odd.symlink_to(victim)
        case "link to a folder":
            odd.symlink_to(out.parent)
        case "second name":
            odd.hardlink_to(victim)
        case _:
            os.mkfifo(odd)
    with pytest.raises(UnsealableError, match="the step left 'odd', which is not a regular file, or has two names"):
        seal(out)
    assert victim.stat().st_mode & 0o777 == 0o600


def test_a_link_instead_of_the_folder_is_refused(out: Path) -> None:
    moved = out.rename(out.with_name("elsewhere"))
    out.symlink_to(moved)
    with pytest.raises(UnsealableError, match="replaced its folder"):
        seal(out)


@pytest.mark.parametrize("name", [b"\xff", b"a\nb", b"a\x1b[31m", b"a\\b"])
def test_a_name_that_no_manifest_can_show_is_refused(out: Path, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(out) + b"/" + name)).touch()
    with pytest.raises(UnsealableError, match="whose name is not printable or has a backslash"):
        seal(out)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    with pytest.raises(UnsealableError, match="the step wrote no file"):
        seal(tmp_path)


def test_folders_are_open_to_their_owner_and_written_by_nobody_else(out: Path) -> None:
    (out / "inner").chmod(0o300)
    (out / "open").mkdir()
    (out / "open").chmod(0o1777)
    assert len(seal(out)) == 2
    assert [(out / name).stat().st_mode & 0o7777 for name in ("inner", "open")] == [0o700, 0o755]


def test_files_that_take_days_to_hash_are_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (out / "holes").open("wb") as file:
        file.truncate(1 << 43)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 42))
    with pytest.raises(UnsealableError, match="the step left 'holes', and its files have more bytes than the disk"):
        seal(out)
    (out / "holes").unlink()
    monkeypatch.setattr(module, "MOST_FILES", 2)
    with pytest.raises(UnsealableError, match="more than 2 files and folders"):
        seal(out)
    (out / "/".join("d" * 21)).mkdir(parents=True)
    monkeypatch.undo()
    with pytest.raises(UnsealableError, match="folders that are more than 20 deep"):
        seal(out)


def test_no_folder_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsealableError, match="replaced its folder"):
        seal(tmp_path / "none")
