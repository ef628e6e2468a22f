from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from artifacts.plan.plan import Job, load_plan
from artifacts.run.lookup import Lookup


@pytest.fixture
def there(built_here: Path) -> Lookup:
    """What is known of a project in which all is built."""
    return Lookup(load_plan())


def job_of(there: Lookup, name: str) -> Job:
    """One job of the plan."""
    job = there.plan.jobs[name]
    assert isinstance(job, Job)
    return job


def test_what_is_built_is_current_and_known(there: Lookup) -> None:
    manifest = there.current("small:flat")
    assert manifest is not None
    assert set(there.known) == set(there.plan.jobs), "its inputs were looked at as well"
    assert there.known["small:flat"].path == there.store.files(there.known["small:flat"].content)


def test_nothing_is_current_in_an_empty_cache(there: Lookup) -> None:
    shutil.rmtree("cache")
    empty = Lookup(there.plan)
    assert [empty.current(name) for name in there.plan.jobs] == [None] * 4
    assert set(empty.known) == {"small:model"}
    assert empty.identity(job_of(there, "small:again")) is None


def test_what_stands_behind_a_target_decides_whether_it_is_current(there: Lookup) -> None:
    shutil.rmtree("recipes/model")
    assert there.current("small:model") is None
    assert there.current("small:flat") is None


def test_a_layout_is_current_only_where_it_is_laid_out(there: Lookup) -> None:
    shutil.rmtree("dist")
    assert there.current("small:again") is not None
    assert there.current("small:flat") is None
    assert there.place_in_dist(job_of(there, "small:flat")) == Path("dist/small/flat")


def test_a_path_that_shows_something_else_is_not_current(there: Lookup) -> None:
    for name in ("shards", "again", "flat"):
        link = Path(f"cache/small/{name}")
        link.unlink()
        link.symlink_to("nowhere")
        assert there.current(f"small:{name}") is None


def test_looking_changes_nothing(there: Lookup) -> None:
    def listing() -> list[tuple[Path, int]]:
        return [(path, path.lstat().st_mtime_ns) for path in sorted(Path().rglob("*")) if "digests" not in path.name]

    before = listing()
    for name in there.plan.jobs:
        there.current(name)
    assert listing() == before


def test_why_a_step_runs_is_told_from_what_is_there(there: Lookup) -> None:
    job = job_of(there, "small:shards")
    there.current("small:shards")
    identity = there.identity(job)
    assert identity is not None
    assert there.why_built(job, identity, "'x' is missing") == ["its artifact was damaged: 'x' is missing"]
    assert there.why_built(job, identity | {"params": {"max_shard_bytes": 1}}, None) == [
        "recipes/small.yaml:7:31: targets.shards.params.max_shard_bytes: 40000 -> 1"
    ]
    assert there.why_restored(job, identity) == ["its path or its layout was not in place"]
    for path in Path("cache/actions").iterdir():
        path.unlink()
    assert there.why_built(job, identity, None) == ["the store's record of its last build is lost or damaged"]
    shutil.rmtree("cache/small")
    assert there.why_built(job, identity, None) == ["it was never built"]
