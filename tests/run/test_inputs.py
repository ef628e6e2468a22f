from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from artifacts.errors import StoreError
from artifacts.plan.code import Code, read_code
from artifacts.plan.plan import STEPS_PACKAGE, Job, load_plan
from artifacts.run.inputs import DamagedError, check_code, check_inputs, hash_inputs
from artifacts.run.lookup import Lookup


@pytest.fixture
def lookup(built_here: Path) -> Lookup:
    """The lookup of a project in which all is built."""
    lookup = Lookup(load_plan())
    assert lookup.current("small:flat") is not None
    return lookup


def job_of(lookup: Lookup, name: str) -> Job:
    """Return a job of the plan."""
    job = lookup.plan.jobs[name]
    assert isinstance(job, Job)
    return job


def rot(lookup: Lookup, path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file's bytes so that its remembered digest stays, as a disk does."""
    digest = lookup.store.memory.digest(path)
    path.chmod(0o644)
    path.write_bytes(change(path.read_bytes()))
    time.sleep(0.2)
    lookup.store.memory.note(path, digest)
    lookup.store.memory._hashed.clear()  # as in the next run
    assert lookup.store.memory.digest(path) == digest


def flip(data: bytes) -> bytes:
    """Return the bytes with one bit changed."""
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize("name", ["small:shards", "small:again"])
def test_unchanged_inputs_pass_the_check(lookup: Lookup, name: str) -> None:
    job = job_of(lookup, name)
    stamps = hash_inputs(lookup, job)
    [(given, files)] = stamps.items()
    assert given == "model"
    assert {path.name for path in files} >= {"encoder-model.onnx"}
    check_inputs(lookup, job, stamps)


def test_a_source_whose_bytes_rotted_is_reported_by_its_name(lookup: Lookup) -> None:
    rot(lookup, Path("recipes/model/encoder-model.onnx"), flip)
    with pytest.raises(DamagedError) as caught:
        hash_inputs(lookup, job_of(lookup, "small:shards"))
    assert caught.value.target == "small:model"
    assert caught.value.fact.endswith("recipes/model' has other bytes than when it was last hashed")
    assert caught.value.fix == "doit small:model"


def test_an_artifact_whose_bytes_rotted_is_reported_by_its_name_and_stays_damaged(lookup: Lookup) -> None:
    rot(lookup, lookup.resolved["small:shards"].path / "encoder-model.onnx", flip)
    assert lookup.current("small:shards") is not None
    with pytest.raises(DamagedError) as caught:
        hash_inputs(lookup, job_of(lookup, "small:again"))
    assert caught.value.target == "small:shards"
    assert "'encoder-model.onnx' has other bytes than its manifest says" in caught.value.fact
    assert lookup.current("small:shards") is None


def _touch(folder: Path) -> None:
    (folder / "encoder-model.onnx").touch()


def _add(folder: Path) -> None:
    (folder / "more").write_text("more")


def _add_and_remove(folder: Path) -> None:
    _add(folder)
    (folder / "more").unlink()


def _remove(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


@pytest.mark.parametrize("change", [_touch, _add, _add_and_remove, _remove])
def test_an_input_that_was_touched_since_is_reported(lookup: Lookup, change: Callable[[Path], None]) -> None:
    job = job_of(lookup, "small:shards")
    stamps = hash_inputs(lookup, job)
    time.sleep(0.02)
    change(Path("recipes/model"))
    with pytest.raises(StoreError) as caught:
        check_inputs(lookup, job, stamps)
    assert caught.value.fact == "input 'model' (small:model) changed while the step read it"


def test_an_input_of_many_targets_is_hashed_once_in_a_run(lookup: Lookup) -> None:
    time.sleep(0.2)
    job, memory = job_of(lookup, "small:shards"), lookup.store.memory
    hash_inputs(lookup, job)
    for path in Path("recipes/model").iterdir():
        memory.note(path, memory.digest(path)[::-1])  # which a second reading would contradict
    with pytest.raises(DamagedError):
        hash_inputs(lookup, job)


MODULE = f"{STEPS_PACKAGE}.shard_weights"


def test_code_that_ran_as_its_identity_says_passes_the_check(lookup: Lookup) -> None:
    job = job_of(lookup, "small:shards")
    identity, code = lookup.identity(job), read_code(f"{STEPS_PACKAGE}.{job.step}", lookup.store.memory)
    assert identity is not None
    check_code(lookup, job, identity, code, {MODULE: code.files[MODULE], "artifacts.not_reached": "x"})
    earlier = Code(code.definitions, code.files | {MODULE: "of a comment that was reworded meanwhile"})
    check_code(lookup, job, identity, earlier, {MODULE: earlier.files[MODULE]})
    check_code(lookup, job, identity, earlier, {MODULE: code.files[MODULE]})


def test_code_that_ran_and_is_not_that_of_the_identity_is_reported(lookup: Lookup) -> None:
    job = job_of(lookup, "small:shards")
    identity, code = lookup.identity(job), read_code(f"{STEPS_PACKAGE}.{job.step}", lookup.store.memory)
    assert identity is not None
    others = Code(code.definitions | {MODULE: {"run": "another"}}, code.files | {MODULE: "edited"})
    for before, compiled in ((code, "of neither"), (others, "edited")):
        with pytest.raises(StoreError, match=f"{MODULE} changed while step 'shard_weights' ran"):
            check_code(lookup, job, identity, before, {MODULE: compiled})
    with pytest.raises(StoreError, match="the code of step 'shard_weights' changed while it ran"):
        check_code(lookup, job, replace(identity, code=code.definitions | {"artifacts.gone": {"x": "y"}}), code, {})
