from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifacts.errors import StepError, StoreError
from artifacts.plan.plan import Job, load_plan
from artifacts.run.build import Build
from artifacts.run.outcome import Outcome
from artifacts.run.run_step import GIB
from artifacts.store.journal import Entry
from small_model import MODEL_RECIPE, write_pipeline


class RecordingListener:
    """A listener that records the events."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.builds: list[Build] = []

    def started(self, target: str, why: list[str]) -> None:
        """Record a start."""
        self.events.append(f"started {target}: {'; '.join(why)}")

    def progressed(self, target: str, message: str, done: int | None, total: int | None) -> None:
        """Ignore progress."""

    def ended(self, outcome: Outcome) -> None:
        """Record an outcome."""
        self.events.append(f"ended {outcome.target}: {outcome.status}")


@pytest.fixture
def listener(here: Path) -> Iterator[RecordingListener]:
    """The listener of a test's builds."""
    listener = RecordingListener()
    yield listener
    for build in listener.builds:
        build.close()


def start(listener: RecordingListener) -> Build:
    """Return the build of a new invocation."""
    listener.builds.append(Build(load_plan(), listener, lambda: GIB))
    return listener.builds[-1]


def test_a_target_is_built_once_and_is_current_in_the_next_invocation(listener: RecordingListener) -> None:
    build = start(listener)
    assert not build.is_current("small:shards")
    build.ensure("small:model")
    outcome = build.ensure("small:shards")
    assert (outcome.status, outcome.metrics["shards"]) == ("built", 3)
    assert outcome.peak_bytes > 10_000_000
    assert listener.events == [
        "ended small:model: found",
        "started small:shards: it was never built",
        "ended small:shards: built",
    ]
    again = start(listener)
    assert again.is_current("small:model")
    assert again.is_current("small:shards")
    unchanged = Outcome("small:shards", "unchanged", outcome.bytes, metrics=outcome.metrics)
    assert again.outcomes["small:shards"] == unchanged
    assert again.ensure("small:shards").status == "unchanged"
    assert [entry.outcome for entry in again.journal.read()] == ["built"]


def test_an_artifact_in_the_store_is_restored_and_the_journal_says_why(listener: RecordingListener) -> None:
    build = start(listener)
    build.ensure("small:model")
    build.ensure("small:shards")
    Path("cache/small/shards").unlink()
    again = start(listener)
    assert not again.is_current("small:shards")
    assert again.ensure("small:shards").status == "restored"
    entry = again.journal.last("small:shards")
    assert entry is not None
    assert (entry.outcome, entry.why) == ("restored", ["its path or its layout was not in place"])
    assert again.is_current("small:shards")


def test_an_input_that_is_not_built_is_an_error(listener: RecordingListener) -> None:
    with pytest.raises(StoreError) as caught:
        start(listener).ensure("small:again")
    assert caught.value.fact == "small:again: its input small:shards is not built"
    assert caught.value.fix == "doit small:shards"


def test_a_failure_is_reported_and_recorded_and_leaves_nothing(listener: RecordingListener) -> None:
    shutil.rmtree("recipes/model")
    Path("recipes/model").mkdir()
    Path("recipes/model/encoder-model.onnx").write_bytes(b"not a model")
    build = start(listener)
    build.ensure("small:model")
    with pytest.raises(StepError, match=r"^small:shards: encoder-model.onnx"):
        build.ensure("small:shards")
    assert build.outcomes["small:shards"].status == "failed"
    entry = build.journal.last("small:shards")
    assert entry is not None
    assert entry.error.startswith("small:shards: encoder-model.onnx")
    assert list(Path("cache/staging").iterdir()) == []
    assert not Path("cache/actions").exists()


def test_the_memory_a_target_needs_is_declared_or_learned_or_unknown(listener: RecordingListener) -> None:
    write_pipeline(MODEL_RECIPE.replace("  again:\n", "  again:\n    resources: {memory_gib: 2.5}\n"))
    build = start(listener)
    jobs = [build.plan.jobs[f"small:{name}"] for name in ("shards", "again")]
    assert all(isinstance(job, Job) for job in jobs)
    assert [build.needed_bytes(job) for job in jobs if isinstance(job, Job)] == [None, int(2.5 * GIB)]
    write_pipeline("resources: {memory_gib: 1}\n" + MODEL_RECIPE)
    for_all = start(listener)
    assert [for_all.needed_bytes(job) for job in for_all.plan.jobs.values() if isinstance(job, Job)] == [GIB] * 3
    for peak in (100, 300, 200):
        build.journal.write(Entry("small:shards", "built", "k", peak_bytes=peak))
    build.journal.write(Entry("small:shards", "failed", ""))
    assert [build.needed_bytes(job) for job in jobs if isinstance(job, Job)] == [300, int(2.5 * GIB)]


def test_a_layout_is_laid_out_and_repaired(listener: RecordingListener) -> None:
    build = start(listener)
    for name in build.plan.jobs:
        build.ensure(name)
    laid_out = Path("dist/small/flat")
    assert len(list(laid_out.iterdir())) == 7
    (laid_out / "encoder-model.onnx").unlink()
    again = start(listener)
    assert not again.is_current("small:flat")
    assert again.ensure("small:flat").status == "restored"
    assert len(list(laid_out.iterdir())) == 7


def test_a_target_that_does_not_end_is_interrupted(
    listener: RecordingListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = start(listener)
    build.ensure("small:model")

    def interrupt(target: str, why: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(listener, "started", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build.ensure("small:shards")
    assert build.outcomes["small:shards"].status == "interrupted"
