"""Bits that flip on the disk below the file system, where no stamp shows it, before something is built from them."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifacts.files.stamps import FINE_MARGIN, SECOND
from artifacts.store.digest_memory import DigestMemory
from small_project import Project, make_project
from small_server import FileServer

pytestmark = pytest.mark.slow


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The image of a disk that is mounted at `project` beside it."""
    image, place = tmp_path / "image", tmp_path / "project"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    if not shutil.which("mkfs.ext4"):
        pytest.skip("mkfs.ext4 is not here: no disk can be made to rot")
    for command in (["mkfs.ext4", "-q", image], ["mount", "-o", "loop", image, place]):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr}")
    yield image
    subprocess.run(["umount", "-l", place])


def test_a_bit_that_flips_on_a_disk_is_met_before_a_step_reads_it(disk: Path, package: Path) -> None:
    project = make_project(disk.parent / "project" / "p", package)
    text = "zebras graze at dawn"
    project.recipe(
        f"targets: {{first: {{step: write_text, params: {{text: {text}, lines: 3}}}}, "
        "second: {step: change_text, inputs: {text: first}, params: {upper: true}}}\n"
    )
    assert project.doit().code == 0
    time.sleep(0.3)
    assert project.doit().code == 0  # remembers what was too new before
    path = project.artifact("first") / "files" / "text.txt"
    before = path.stat()
    subprocess.run(["umount", disk.parent / "project"], check=True)
    data, line = bytearray(disk.read_bytes()), f"{text}\n".encode() * 3
    assert data.count(line) == 1
    data[data.index(line) + 5] ^= 1
    disk.write_bytes(data)
    subprocess.run(["mount", "-o", "loop", disk, disk.parent / "project"], check=True)
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
    assert path.read_bytes() != line
    project.replace("upper: true", "upper: false")
    ended = project.doit()
    assert (ended.code, ended.err) == (0, "")
    assert path.read_bytes() == line
    assert project.text("second") == f"{text}\n" * 3
    assert_all_intact(project)


ON_NOTES = """\
sources:
  notes: {folder: notes}
  more: {folder: more}
targets:
  first: {step: change_text, inputs: {text: notes, more: more}, params: {suffix: .}}
  second: {step: change_text, inputs: {text: first, more: notes}}
"""


def use_notes(project: Project) -> None:
    """Let the project's targets be made from two folders."""
    for name in ("notes", "more"):
        (project.root / "recipes" / name).mkdir()
        (project.root / "recipes" / name / "text.txt").write_text(f"these are {name}\n" * 3)
    project.recipe(ON_NOTES)


def assert_all_intact(project: Project) -> None:
    """All is what its manifest says, and there is nothing left to do."""
    ended = project.doit("verify")
    assert (ended.code, ended.err) == (0, "")
    assert "all unchanged" in project.doit().out


@pytest.mark.parametrize("words", [(), ("-n", "2")])
def test_an_input_that_rotted_is_built_again_before_a_step_reads_it(
    built_project: Project, words: tuple[str, ...]
) -> None:
    built_project.rot(built_project.artifact("first") / "files" / "text.txt")
    built_project.replace("upper: true", "upper: false")  # which alone builds the second and what follows
    ended = built_project.doit(*words)
    assert (ended.code, ended.err) == (0, "")
    assert "its artifact was damaged: 'text.txt' has other bytes than its manifest says\n" in ended.out
    assert sorted(built_project.built()[4:]) == ["first", "flat", "second", "third"]
    assert built_project.text("third") == "one\n" * 3 + "."
    assert (built_project.root / "dist/small/flat/text.txt").read_text() == "one\n" * 3 + "." + "one\n" * 3
    assert_all_intact(built_project)


def test_two_inputs_of_one_step_that_rotted_are_both_built_again(built_project: Project) -> None:
    for target in ("first", "third"):
        built_project.rot(built_project.artifact(target) / "files" / "text.txt")
    built_project.replace("{text: third, more: first}", "{text: third, more: first}\n    params: {suffix: '!'}")
    ended = built_project.doit()
    assert (ended.code, ended.err) == (0, "")
    assert sorted(built_project.built()[4:]) == ["first", "flat", "third"]
    assert_all_intact(built_project)


def test_an_input_of_an_input_that_rotted_is_met_as_well(built_project: Project) -> None:
    for target in ("first", "second", "third"):
        built_project.rot(built_project.artifact(target) / "files" / "text.txt")
    built_project.replace("{text: third, more: first}", "{text: third, more: first}\n    params: {suffix: '!'}")
    ended = built_project.doit()
    assert (ended.code, ended.err) == (0, "")
    assert sorted(built_project.built()[4:]) == ["first", "flat", "second", "third"]
    assert_all_intact(built_project)


def test_a_source_that_rotted_is_told_and_nothing_is_built_from_it(project: Project) -> None:
    use_notes(project)
    assert project.doit().code == 0
    path = project.root / "recipes" / "notes" / "text.txt"
    good = path.read_bytes()
    project.rot(path)
    project.replace("suffix: .", "suffix: '!'")
    for _ in range(2):
        ended = project.doit()
        assert ended.code == 1
        fact, fix = ended.err.splitlines()
        assert re.fullmatch(
            r"recipes/small.yaml:2:3: sources.notes: 'recipes/notes' has sha256 .*pipeline.lock.yaml pins .*", fact
        )
        assert fix.startswith("  fix: put the pinned bytes back, or ")
        assert project.built() == ["first", "second"]
    path.write_bytes(good)
    assert project.doit().code == 0
    assert project.text("first") == "these are notes\n" * 3 + "these are more\n" * 3 + "!"
    assert_all_intact(project)


def test_a_download_that_rotted_is_fetched_again_before_a_step_reads_it(project: Project, server: FileServer) -> None:
    data = b"some bytes" * 1000
    server.files["/notes.bin"] = data
    pin = hashlib.sha256(data).hexdigest()
    project.recipe(
        f"sources: {{notes: {{url: '{server.address}/notes.bin', sha256: {pin}}}}}\n"
        "targets: {first: {step: take_text, inputs: {source: notes}}}\n"
    )
    assert project.doit().code == 0
    project.rot(project.cache / "downloads" / pin / "notes.bin")
    project.replace("inputs: {source: notes}", "inputs: {source: notes}, params: {times: 2}")
    ended = project.doit()
    assert ended.code == 0
    assert "notes.bin was damaged and is fetched again" in ended.err
    assert len(server.gets("/notes.bin")) == 2
    assert (project.cache / "small" / "first" / "text.txt").read_bytes() == data * 2
    assert_all_intact(project)


def test_a_layout_that_rotted_is_not_laid_out(built_project: Project) -> None:
    before = (built_project.root / "dist/small/flat/text.txt").read_bytes()
    built_project.rot(built_project.artifact("flat") / "files" / "text.txt")
    shutil.rmtree(built_project.root / "dist")
    ended = built_project.doit()
    assert (ended.code, ended.err) == (0, "")
    assert built_project.built()[4:] == ["flat"]
    assert (built_project.root / "dist/small/flat/text.txt").read_bytes() == before
    assert_all_intact(built_project)


def test_rotten_bytes_that_a_step_gives_anew_are_replaced_by_it(built_project: Project) -> None:
    built_project.rot(built_project.artifact("second") / "files" / "text.txt")
    built_project.replace("upper: true", "upper: true, seconds: 0.01")  # another key, and the same bytes
    assert built_project.doit().code == 0
    assert built_project.built()[4:] == ["second"]
    assert built_project.text("second") == "ONE\n" * 3
    assert_all_intact(built_project)


def test_a_memory_with_a_wrong_digest_lets_no_intact_source_and_no_intact_artifact_be_refused(project: Project) -> None:
    use_notes(project)
    assert project.doit().code == 0
    time.sleep(2 * FINE_MARGIN / SECOND)
    memory = DigestMemory(project.cache / "digests.sqlite")
    for path in (project.root / "recipes/notes/text.txt", project.artifact("first") / "files" / "text.txt"):
        memory.note(path, "0" * 64)
        assert memory.digest(path) == "0" * 64
    memory.close()
    for words in (("verify",), (), ()):
        ended = project.doit(*words)
        assert (ended.code, ended.err) == (0, "")
    assert "all unchanged" in ended.out
    assert project.built() == ["first", "second"]
