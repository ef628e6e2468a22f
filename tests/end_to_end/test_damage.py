"""Files of results that were deleted, cut off or altered: noticed and repaired, or found by `doit verify`."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from small_model import MODEL_RECIPE, write_model
from small_project import RECIPE, Project

pytestmark = pytest.mark.slow


def delete(path: Path) -> None:
    """It is gone."""
    path.unlink()


def truncate(path: Path) -> None:
    """Its second half is gone."""
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[: len(data) // 2])


def flip(path: Path) -> None:
    """One bit in its middle is another; its size and its mtime are as they were."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_link(path: Path) -> None:
    """The bytes are right, but behind a link."""
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to("other")


DAMAGE: list[Callable[[Path], None]] = [delete, truncate, flip]


def record(project: Project, target: str) -> Path:
    """The record of the action that made a target."""
    key = (project.cache / "small" / ".state" / f"{target}.key").read_text()
    return project.cache / "actions" / f"{key}.json"


# What can be damaged, and whether the step of `second` has to run again to repair it.
PLACES: dict[str, tuple[Callable[[Project], Path], bool]] = {
    "a file": (lambda project: project.artifact("second") / "files" / "text.txt", True),
    "the manifest": (lambda project: project.artifact("second") / "manifest.json", True),
    "the record": (lambda project: record(project, "second"), True),
    "the manifest beside the path": (lambda project: project.cache / "small/.state/second.manifest.json", False),
    "the key": (lambda project: project.cache / "small/.state/second.key", False),
    "a file in dist": (lambda project: project.root / "dist/small/flat/text.txt", False),
}


def results(project: Project) -> dict[str, bytes]:
    """The project's files, but for what a repair may change: the journal, and seconds in records."""
    return {
        name: data
        for name, data in project.files().items()
        if not name.startswith(("cache/journal", "cache/actions/", "cache/locks/", "cache/logs/"))
    }


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_noticed_and_repaired(built_project: Project, place: str, damage: Callable[[Path], None]) -> None:
    before = results(built_project)
    find, runs = PLACES[place]
    damage(find(built_project))
    assert results(built_project) != before or place == "the record"
    ended = built_project.doit("-n", "2")
    assert ended.code == 0, ended.err
    assert results(built_project) == before
    assert built_project.built()[4:] == (["second"] if runs else []), "no more was built than was damaged"
    assert "all unchanged" in built_project.doit().out


@pytest.mark.parametrize(
    "damage",
    [
        lambda project: (project.cache / "small" / "second").unlink(),
        lambda project: shutil.rmtree(project.cache / "small"),
        lambda project: shutil.rmtree(project.root / "dist"),
        lambda project: shutil.rmtree(project.artifact("second")),
        lambda project: shutil.rmtree(project.artifact("second") / "files"),
        lambda project: shutil.rmtree(project.cache / "actions"),
        lambda project: replace_by_link(project.artifact("second") / "files" / "text.txt"),
        lambda project: (project.artifact("second") / "files" / "stale.000").write_bytes(b"stale"),
        lambda project: (project.root / "dist/small/flat/stale.000").write_bytes(b"stale"),
    ],
    ids=[
        "the path", "all paths", "dist", "an artifact", "its files", "all records", "a link for a file", "a stale file",
        "a stale file in dist",
    ],
)  # fmt: skip
def test_what_is_gone_or_does_not_belong_there_is_put_right(
    built_project: Project, damage: Callable[[Project], None]
) -> None:
    before = results(built_project)
    damage(built_project)
    assert built_project.doit().code == 0
    assert results(built_project) == before
    assert "all unchanged" in built_project.doit().out


def test_a_repair_says_what_was_wrong(built_project: Project) -> None:
    truncate(built_project.artifact("second") / "files" / "text.txt")
    said = built_project.doit("why", "second").out
    assert "its artifact was damaged: 'text.txt' has 6 bytes instead of 12\n" in said
    assert "building small:second: its artifact was damaged: 'text.txt' has 6 bytes" in built_project.doit().out


def test_a_flip_that_shows_in_no_time_and_no_size_is_found_by_verify(built_project: Project) -> None:
    before = results(built_project)
    for path in (built_project.artifact("second") / "files/text.txt", built_project.root / "dist/small/flat/text.txt"):
        built_project.rot(path)
    assert "all unchanged" in built_project.doit().out, "the very thing that verify is for"
    ended = built_project.doit("verify")
    assert ended.code == 1
    assert "small:second: 'text.txt' has other bytes than its manifest says\n  fix: doit small:second\n" in ended.err
    assert "small:flat: under 'dist/small/flat', 'text.txt' has other bytes than its manifest says\n" in ended.err
    assert ended.out.startswith("3 of 5 targets intact, ")
    assert built_project.doit().code == 0
    assert results(built_project) == before
    ended = built_project.doit("verify")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("5 of 5 targets intact, ")


def test_verify_reads_what_the_default_of_a_recipe_leaves_out(built_project: Project) -> None:
    built_project.recipe(f"default: [first]\n{RECIPE}")
    assert built_project.doit("verify").out.startswith("5 of 5 targets intact, ")


def test_a_link_and_a_manifest_that_doit_would_put_right_are_found_by_verify(built_project: Project) -> None:
    (built_project.cache / "small" / "first").unlink()
    (built_project.cache / "small" / "second").unlink()
    (built_project.cache / "small" / "second").symlink_to("nowhere")
    (built_project.cache / "small" / ".state" / "third.manifest.json").unlink()
    (built_project.cache / "small" / ".state" / "notes.manifest.json").write_text("{}")
    shutil.rmtree(built_project.root / "dist")
    ended = built_project.doit("verify")
    assert ended.code == 1
    assert ended.err.splitlines() == [
        "small:notes: 'cache/small/.state/notes.manifest.json' is not its manifest",
        "  fix: doit small:notes",
        "small:first: 'cache/small/first' does not show its artifact",
        "  fix: doit small:first",
        "small:second: 'cache/small/second' does not show its artifact",
        "  fix: doit small:second",
        "small:third: 'cache/small/.state/third.manifest.json' does not show its artifact",
        "  fix: doit small:third",
        "small:flat: it is not laid out: no folder at 'dist/small/flat'",
        "  fix: doit small:flat",
    ]
    for line in ended.err.splitlines()[1::2]:
        assert built_project.doit(*line.removeprefix("  fix: doit ").split()).code == 0
    ended = built_project.doit("verify")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("5 of 5 targets intact, ")


def test_a_folder_in_the_place_of_a_link_is_told_with_what_puts_it_right(built_project: Project) -> None:
    link = built_project.cache / "small" / "first"
    link.unlink()
    link.mkdir()
    ended = built_project.doit("verify")
    assert ended.err == (
        "small:first: 'cache/small/first' is a folder where a link belongs\n"
        "  fix: move it away, then: doit small:first\n"
    )
    link.rename(link.with_name("away"))
    assert built_project.doit("small:first").code == 0
    assert built_project.doit("verify").code == 0


def test_a_source_that_is_not_locked_yet_is_told_from_a_damaged_one(project: Project) -> None:
    project.replace("layouts:", "  bad: {step: change_text, inputs: {text: notes}}\nlayouts:")
    project.doit("--continue")  # the source is found, and its step refuses it
    assert not (project.root / "pipeline.lock.yaml").exists()
    ended = project.doit("verify")
    assert (ended.code, ended.err) == (0, "")
    assert "small:notes: is not pinned yet; the first step that reads it pins it\n" in ended.out
    assert re.search(r"^4 of 5 targets intact, 1 not pinned yet, ", ended.out, flags=re.MULTILINE)
    (project.root / "recipes" / "notes.txt").unlink()
    ended = project.doit("verify", "notes")
    assert ended.code == 1
    assert ended.err == (
        "small:notes: recipes/small.yaml:2:3: sources.notes: no file at 'recipes/notes.txt'\n"
        "  fix: put the file there\n"
    )


def test_verify_finds_a_source_that_was_edited(built_project: Project) -> None:
    (built_project.root / "recipes" / "notes.txt").write_text("other notes\n")
    ended = built_project.doit("verify", "notes")
    assert ended.code == 1
    fact, fix = ended.err.splitlines()
    assert re.fullmatch(r"small:notes: recipes/small.yaml:2:3: sources.notes: 'recipes/notes.txt' has sha256 .*", fact)
    assert re.fullmatch(r"  fix: put the pinned bytes back, or if the new ones are right: doit pin small:notes", fix)


def test_a_torn_memory_of_digests_is_made_anew(built_project: Project) -> None:
    (built_project.cache / "digests.sqlite").write_bytes(b"no database at all, but long enough to be read as one" * 9)
    assert "all unchanged" in built_project.doit().out
    assert "all unchanged" in built_project.doit().out


def test_a_cache_of_another_version_is_built_again_and_not_tripped_over(built_project: Project) -> None:
    for path in (built_project.cache / "actions").iterdir():
        path.write_text('{"identity": {}, "content": "x", "of": "another version"}')
    (built_project.cache / "journal.jsonl").write_text('{"what": "another version"}\n[]\nnot json\n')
    (built_project.cache / "small/.state/second.key").write_bytes(b"\xff\xfe")
    for words in (("plan",), ("why",), ("list",), ("verify",)):
        assert built_project.doit(*words).code in (0, 1)
    ended = built_project.doit()
    assert ended.code == 0, ended.err
    assert "4 built" in ended.out


def test_gc_drops_what_no_recipe_needs_and_says_how_much(built_project: Project) -> None:
    before = results(built_project)
    built_project.replace("lines: 3", "lines: 500")
    built_project.doit()
    built_project.replace("lines: 500", "lines: 3")
    built_project.doit()
    staged = built_project.cache / "staging" / "abc.def" / "files"
    staged.mkdir(parents=True)
    (staged / "half.bin").write_bytes(bytes(5000))
    (built_project.root / "dist/small/.flat.abcd1234.unfinished").mkdir()
    ended = built_project.doit("gc")
    assert ended.code == 0
    assert re.fullmatch(r"removed 4 artifacts and downloads, 4 records, 15\.\d kB\n", ended.out)
    assert results(built_project) == before
    assert "all unchanged" in built_project.doit().out
    assert "removed 0 artifacts and downloads, 0 records, 0 B" in built_project.doit("gc").out


def test_gc_keeps_what_a_target_is_now_and_what_it_would_be(built_project: Project) -> None:
    built_project.replace("upper: true", "upper: false")
    built_project.doit()
    built_project.replace("upper: false", "upper: true")
    assert built_project.doit("gc").code == 0
    assert "3 restored" in built_project.doit().out


def test_gc_takes_no_target(built_project: Project) -> None:
    ended = built_project.doit("gc", "first")
    assert ended.code == 3
    assert "gc takes no target\n  fix: " in ended.err


def test_damaged_onnx_files_and_external_data_are_repaired(project: Project) -> None:
    write_model(project.root / "recipes" / "model")
    project.recipe(MODEL_RECIPE)
    assert project.doit("shards").code == 0
    before = results(project)
    names = sorted(path.name for path in (project.artifact("shards") / "files").iterdir())
    assert names == ["encoder-model.onnx", *(f"encoder-model.onnx.data.00{i}" for i in range(3))]
    for name, damage in zip(names, (flip, truncate, delete, flip), strict=True):
        damage(project.artifact("shards") / "files" / name)
        assert project.doit("shards").code == 0
        assert results(project) == before
    assert project.built() == ["shards"] * 5
