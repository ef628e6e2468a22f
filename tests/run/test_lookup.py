from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from artifacts.plan.plan import Job, load_plan
from artifacts.run.lookup import Lookup


@pytest.fixture
def lookup(built_here: Path) -> Lookup:
    """The lookup of a project in which all is built."""
    return Lookup(load_plan())


def job_of(lookup: Lookup, name: str) -> Job:
    """Return a job of the plan."""
    job = lookup.plan.jobs[name]
    assert isinstance(job, Job)
    return job


def test_a_built_target_is_current_and_resolved(lookup: Lookup) -> None:
    manifest = lookup.current("small:flat")
    assert manifest is not None
    assert set(lookup.resolved) == set(lookup.plan.jobs), "its inputs were looked at as well"
    assert lookup.resolved["small:flat"].path == lookup.store.files(lookup.resolved["small:flat"].content)


def test_nothing_is_current_in_an_empty_cache(lookup: Lookup) -> None:
    shutil.rmtree("cache")
    empty = Lookup(lookup.plan)
    assert [empty.current(name) for name in lookup.plan.jobs] == [None] * 4
    assert set(empty.resolved) == {"small:model"}
    assert empty.identity(job_of(lookup, "small:again")) is None


def test_a_target_is_current_only_if_its_inputs_are(lookup: Lookup) -> None:
    shutil.rmtree("recipes/model")
    assert lookup.current("small:model") is None
    assert lookup.current("small:flat") is None


def test_a_layout_is_current_only_where_it_is_laid_out(lookup: Lookup) -> None:
    shutil.rmtree("dist")
    assert lookup.current("small:again") is not None
    assert lookup.current("small:flat") is None
    assert lookup.layout_folder(job_of(lookup, "small:flat")) == Path("dist/small/flat")


def test_a_path_that_shows_something_else_is_not_current(lookup: Lookup) -> None:
    for name in ("shards", "again", "flat"):
        link = Path(f"cache/small/{name}")
        link.unlink()
        link.symlink_to("nowhere")
        assert lookup.current(f"small:{name}") is None


def test_a_lookup_changes_nothing(lookup: Lookup) -> None:
    def listing() -> list[tuple[Path, int]]:
        return [(path, path.lstat().st_mtime_ns) for path in sorted(Path().rglob("*")) if "digests" not in path.name]

    before = listing()
    for name in lookup.plan.jobs:
        lookup.current(name)
    assert listing() == before


def test_the_store_and_the_link_say_why_a_step_runs(lookup: Lookup) -> None:
    job = job_of(lookup, "small:shards")
    lookup.current("small:shards")
    identity = lookup.identity(job)
    assert identity is not None
    assert lookup.why_built(job, identity, "'x' is missing") == ["its artifact was damaged: 'x' is missing"]
    assert lookup.why_built(job, replace(identity, params={"max_shard_bytes": 1}), None) == [
        "recipes/small.yaml:7:31: targets.shards.params.max_shard_bytes: 40000 -> 1"
    ]
    assert lookup.why_restored(job, identity) == ["its path or its layout was not in place"]
    for path in Path("cache/actions").iterdir():
        path.unlink()
    assert lookup.why_built(job, identity, None) == ["the store's record of its last build is lost or damaged"]
    shutil.rmtree("cache/small")
    assert lookup.why_restored(job, identity) == ["the same artifact is in the store"]
    assert lookup.why_built(job, identity, None) == ["it was never built"]
