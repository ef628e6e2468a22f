"""What killed runs leave on its way to a name: removed by the next run that writes there; locks that nobody holds."""

from __future__ import annotations

from pathlib import Path

from small_project import Project

LEFT = "abcd1234.unfinished"


def leave(path: Path) -> Path:
    """A file that a killed run left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("left")
    return path


def test_the_next_run_that_writes_there_removes_what_a_killed_one_left(built_project: Project) -> None:
    cache, state = built_project.cache, built_project.cache / "small" / ".state"
    content = built_project.artifact("second").name
    key = (state / "second.key").read_text()
    left = [
        leave(state / f".second.key.{LEFT}"),
        leave(state / f".second.manifest.json.{LEFT}"),
        leave(cache / "small" / f".second.{LEFT}" / "second"),
        leave(cache / "actions" / f".{key}.json.{LEFT}"),
        leave(cache / "artifacts" / f".{content}.{LEFT}" / content / "files" / "text.txt"),
        leave(built_project.root / "dist" / "small" / f".flat.{LEFT}" / "new" / "text.txt"),
        leave(cache / "staging" / f"{key}.abc" / "files" / "text.txt"),
    ]
    others = [leave(cache / "small" / ".second.swp")]
    (cache / "artifacts" / content / "files" / "text.txt").unlink()
    (built_project.root / "dist" / "small" / "flat" / "text.txt").unlink()
    assert built_project.doit().code == 0
    assert [path for path in left if path.exists()] == []
    assert all(path.exists() for path in others)


def test_a_run_with_nothing_to_do_removes_what_a_killed_one_left(built_project: Project) -> None:
    left = [
        leave(built_project.cache / "staging" / "key.abc" / "files" / "text.txt"),
        leave(built_project.root / "dist" / "small" / f".flat.{LEFT}" / "new" / "text.txt"),
    ]
    assert "all unchanged" in built_project.doit().out
    assert [path for path in left if path.exists()] == []


def test_a_lock_file_that_was_on_its_way_is_removed_when_the_next_source_is_locked(project: Project) -> None:
    project.recipe(
        "sources: {notes: {file: notes.txt}}\ntargets: {first: {step: take_text, inputs: {source: notes}}}\n"
    )
    left = leave(project.root / f".pipeline.lock.yaml.{LEFT}")
    swap = leave(project.root / ".pipeline.lock.yaml.swp")
    assert project.doit().code == 0
    assert not left.exists()
    assert swap.exists()
    assert (project.root / "pipeline.lock.yaml").exists()


def test_the_manifest_of_a_source_that_was_on_its_way_is_removed_when_it_is_found(project: Project) -> None:
    left = leave(project.cache / "small" / ".state" / f".notes.manifest.json.{LEFT}")
    assert project.doit("small:notes").code == 0
    assert not left.exists()


def test_builds_leave_no_lock_files(built_project: Project) -> None:
    assert list((built_project.cache / "locks").iterdir()) == []
    built_project.replace("text: one", "text: two")
    assert built_project.doit("-n", "4").code == 0
    assert list((built_project.cache / "locks").iterdir()) == []
