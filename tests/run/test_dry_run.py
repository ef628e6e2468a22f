"""Predictions for sources and records; those for whole plans are tested in end_to_end/test_explain.py."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from artifacts.plan.plan import load_plan
from artifacts.run.build import Build
from artifacts.run.dry_run import dry_run
from small_model import MODEL_RECIPE, Quiet, write_pipeline


def predict(*words: str) -> dict[str, tuple[str, list[str]]]:
    """Return the status that each target would have, and why."""
    return {row.target.removeprefix("small:"): (row.status, row.why) for row in dry_run(load_plan(), list(words))}


@pytest.mark.usefixtures("here")
def test_a_local_source_is_found_until_a_step_has_read_it_then_unchanged() -> None:
    build = Build(load_plan(), Quiet(), lambda: 1 << 30)
    assert predict("model") == {"model": ("found", ["it is not pinned yet"])}
    build.ensure("small:model")
    assert predict("model") == {"model": ("found", ["it is not pinned yet"])}
    build.ensure("small:shards")
    build.close()
    assert predict("model") == {"model": ("unchanged", [])}


@pytest.mark.usefixtures("here")
def test_a_source_that_is_not_here_is_missing_and_its_consumers_are_not_tried() -> None:
    shutil.rmtree("recipes/model")
    rows = predict()
    fact = "recipes/small.yaml:2:3: sources.model: no folder at 'recipes/model'"
    assert rows["model"] == ("missing", [fact, "fix: put the folder there"])
    assert rows["shards"] == rows["flat"] == ("not tried", rows["model"][1])
    needs = [row.needs for row in dry_run(load_plan(), [])]
    assert needs == [(), ("small:model",), ("small:model",), ("small:model",)]


@pytest.mark.usefixtures("here")
def test_a_missing_source_is_told_with_its_hint() -> None:
    write_pipeline(MODEL_RECIPE.replace("{folder: model}", "{folder: none, hint: ask the owner}"))
    assert predict()["model"][1][1] == "fix: ask the owner"


@pytest.mark.usefixtures("built_here")
@pytest.mark.parametrize("pinned_by", ["pipeline.lock.yaml", "recipes/small.yaml"])
def test_a_source_whose_bytes_changed_is_not_called_missing(pinned_by: str) -> None:
    if pinned_by != "pipeline.lock.yaml":
        write_pipeline(MODEL_RECIPE.replace("{folder: model}", f"{{folder: model, sha256: '{'0' * 64}'}}"))
    with Path("recipes/model/encoder-model.onnx").open("ab") as file:
        file.write(b"more")
    rows = predict()
    status, (fact, fix) = rows["model"]
    assert status == "changed"
    assert re.fullmatch(rf".*'recipes/model' has sha256 \w{{64}}, {pinned_by} pins \w{{64}}", fact)
    assert fix.startswith("fix: put the pinned bytes back, or ")
    assert rows["shards"] == rows["flat"] == ("not tried", [fact, fix])


@pytest.mark.usefixtures("here")
def test_a_source_that_is_there_and_that_no_step_may_read_is_not_called_missing() -> None:
    Path("recipes/model/link").symlink_to(Path.cwd())
    status, (fact, fix) = predict()["model"]
    assert (status, fix) == ("refused", "fix: put the folder itself there")
    assert fact.endswith("'recipes/model/link' is a link to a folder")


@pytest.mark.usefixtures("here")
def test_what_needs_an_optional_source_that_is_absent_is_skipped() -> None:
    write_pipeline(MODEL_RECIPE.replace("{folder: model}", "{folder: model, optional: true, hint: put it there}"))
    assert predict()["shards"][0] == "built"
    shutil.rmtree("recipes/model")
    rows = predict()
    skipped = ("skipped", ["small:model: no folder at 'recipes/model'; put it there"])
    assert rows == dict.fromkeys(("model", "shards", "again", "flat"), skipped)
    needs = {row.target: row.needs for row in dry_run(load_plan(), [])}
    lacks = dict.fromkeys(("small:shards", "small:again", "small:flat"), ("small:model",))
    assert needs == {"small:model": ()} | lacks


@pytest.mark.usefixtures("here")
def test_a_pinned_address_is_fetched_and_its_consumers_are_predicted() -> None:
    pin = hashlib.sha256(b"model").hexdigest()
    source = f"{{url: 'http://127.0.0.1:9/model.onnx', sha256: {pin}}}"
    write_pipeline(MODEL_RECIPE.replace("{folder: model}", source))
    rows = predict()
    assert rows["model"] == ("fetched", [])
    assert rows["shards"] == ("built", ["it was never built"])
    write_pipeline(MODEL_RECIPE.replace("{folder: model}", "{url: 'http://127.0.0.1:9/model.onnx'}"))
    assert predict()["shards"] == ("built", ["it was never built", "small:model is fetched first"])


@pytest.mark.usefixtures("built_here")
def test_damage_is_predicted_in_words_and_its_consumers_may_be_unchanged() -> None:
    path = Path("cache/small/shards/encoder-model.onnx.data.001").resolve()
    path.unlink()
    rows = predict()
    assert rows["shards"] == ("built", ["its artifact was damaged: 'encoder-model.onnx.data.001' is missing"])
    assert rows["again"] == (
        "built?",
        ["small:shards is built first; unchanged if those bytes stay the same"],
    )


@pytest.mark.usefixtures("built_here")
def test_damage_of_a_target_with_unbuilt_inputs_is_certain() -> None:
    for target in ("shards", "again"):
        next(Path(f"cache/small/{target}/").resolve().glob("*.data.000")).unlink()
    what, why = predict()["again"]
    assert what == "built"
    assert why == ["its artifact was damaged: 'encoder-model.onnx.data.000' is missing", "small:shards is built first"]


@pytest.mark.usefixtures("built_here")
def test_the_last_build_gives_the_expected_seconds_and_memory() -> None:
    last = {row.target: row.last for row in dry_run(load_plan(), [])}
    assert last["small:model"] is None
    entry = last["small:shards"]
    assert entry is not None
    assert entry.seconds > 0
    assert entry.peak_bytes > 10_000_000
