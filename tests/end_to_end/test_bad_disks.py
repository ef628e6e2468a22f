"""Disks that are full, or cannot be written: told as such, and nothing that was there is lost."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from small_project import Project
from small_server import FileServer

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("how", ["fill the disk", "blame no one"])
def test_a_disk_that_a_step_fills_is_told_as_such(project: Project, small_disk: Path, how: str) -> None:
    project.cache.symlink_to(small_disk)
    project.recipe(f"targets:\n  bad: {{step: misbehave, params: {{how: {how}}}}}\n  good: {{step: write_text}}\n")
    ended = project.doit("--continue", "bad", "good")
    assert ended.code != 0
    assert re.fullmatch(
        r"small:bad: the disk below '.*/staging' is full\n  fix: free some space \(doit gc .*\), then run again\n",
        ended.err,
    ), ended.err
    assert project.built() == ["good"], "there is room again for others"
    assert "2 of 2 targets" not in project.doit("verify").out


def test_a_disk_that_is_full_already_is_told_as_such(built_project: Project, small_disk: Path) -> None:
    shutil.move(built_project.cache, small_disk / "cache")
    built_project.cache.symlink_to(small_disk / "cache")
    with (small_disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    assert "all unchanged" in built_project.doit().out
    built_project.replace("text: one", "text: two")
    ended = built_project.doit()
    assert ended.code == 1
    assert re.fullmatch(r"small:first: the disk below 'cache' is full\n  fix: free some space .*\n", ended.err), (
        ended.err
    )
    (small_disk / "filler").unlink()
    assert built_project.doit().code == 0
    assert built_project.text("third") == "TWO\n" * 3 + "."


def test_dist_on_a_full_disk_keeps_what_was_laid_out(built_project: Project, small_disk: Path) -> None:
    dist = built_project.root / "dist"
    shutil.move(dist, small_disk / "dist")
    dist.symlink_to(small_disk / "dist")
    before = (dist / "small/flat/text.txt").read_bytes()
    built_project.replace("lines: 3", "lines: 999")
    built_project.replace("text: one", f"text: {'a' * 2500}")
    ended = built_project.doit()
    assert ended.code == 1
    assert re.match(r"small:flat: the disk below 'dist/small' is full\n", ended.err), ended.err
    assert (dist / "small/flat/text.txt").read_bytes() == before
    assert [path.name for path in (dist / "small").iterdir()] == ["flat"]


def test_a_disk_that_a_download_fills_is_not_taken_for_a_bad_network(
    project: Project, small_disk: Path, server: FileServer
) -> None:
    project.cache.symlink_to(small_disk)
    server.files["/big.bin"] = bytes(6 << 20)
    project.recipe(f"sources: {{big: {{url: '{server.address}/big.bin'}}}}\ntargets: {{good: {{step: write_text}}}}\n")
    ended = project.doit("small:big")
    assert ended.code == 1
    assert re.fullmatch(
        r"recipes/small.yaml:1:11: sources.big: the disk below '.*' is full\n  fix: free some space .*\n", ended.err
    ), ended.err
    assert not (project.root / "pipeline.lock.yaml").exists()


@pytest.mark.parametrize("name", ["downloads", "actions", "small/.state"])
def test_a_full_folder_of_the_cache_on_a_disk_of_its_own_is_named(
    project: Project, small_disk: Path, server: FileServer, name: str
) -> None:
    server.files["/big.bin"] = bytes(6 << 20)
    project.recipe(f"sources: {{big: {{url: '{server.address}/big.bin'}}}}\ntargets: {{good: {{step: write_text}}}}\n")
    (project.cache / name).parent.mkdir(parents=True, exist_ok=True)
    (project.cache / name).symlink_to(small_disk)
    if name != "downloads":
        with (small_disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
    ended = project.doit("small:big" if name == "downloads" else "small:good")
    assert ended.code == 1
    assert re.fullmatch(rf".*: the disk below 'cache/{name}.*' is full\n  fix: free some space.*\n", ended.err), (
        ended.err
    )


def test_a_cache_that_is_spread_over_two_disks_is_told_as_such(project: Project, small_disk: Path) -> None:
    project.cache.mkdir()
    (project.cache / "artifacts").symlink_to(small_disk)
    ended = project.doit("first")
    assert ended.code == 1
    assert re.fullmatch(
        r"small:first: '.*': Invalid cross-device link\n  fix: move the whole cache to one disk, .*\n",
        ended.err,
    ), ended.err


def test_a_limit_of_file_sizes_is_told_with_its_number(project: Project) -> None:
    project.recipe(f"targets: {{first: {{step: write_text, params: {{text: {'a' * 90}, lines: 999}}}}}}\n")
    command = ["bash", "-c", f"ulimit -f 32; exec {sys.executable} -m doit"]
    done = subprocess.run(command, cwd=project.root, env=project.environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(
        r"small:first: a file below '.*staging' became longer than the 32768 bytes that this process may write\n"
        r"  fix: run `ulimit -f unlimited`, then run again\n",
        done.stderr,
    ), done.stderr
    assert project.built() == []
    assert project.doit().code == 0


@pytest.fixture
def read_only(built_project: Project) -> Iterator[Project]:
    """A project that is built, on a disk that cannot be written any more."""
    bound = subprocess.run(["mount", "--bind", built_project.root, built_project.root], capture_output=True, text=True)
    if bound.returncode:
        pytest.skip(f"nothing can be mounted here: {bound.stderr}")
    subprocess.run(["mount", "-o", "remount,ro,bind", built_project.root], check=True)
    yield built_project
    subprocess.run(["umount", "-l", built_project.root], check=True)


def test_on_a_read_only_disk_what_is_there_can_be_used(read_only: Project) -> None:
    assert "all unchanged" in read_only.doit().out
    assert read_only.doit("list").code == 0
    assert read_only.doit("plan").code == 0
    assert read_only.doit("verify").code == 0
    refused = read_only.doit("gc")
    assert refused.code == 3
    assert (
        refused.err
        == "ERROR: 'cache/guard': Read-only file system\n  fix: check the disk and its permissions, then run again\n"
    )


def test_on_a_read_only_disk_what_has_to_be_built_is_refused(read_only: Project) -> None:
    subprocess.run(["mount", "-o", "remount,bind,rw", read_only.root], check=True)
    read_only.replace("lines: 3", "lines: 4")
    subprocess.run(["mount", "-o", "remount,bind,ro", read_only.root], check=True)
    ended = read_only.doit("third")
    assert ended.code == 1
    assert ended.err.startswith("small:first: 'cache/guard': Read-only file system\n  fix: check the disk")
