from __future__ import annotations

import re
from pathlib import Path

import pytest

from artifacts.errors import RecipeError
from artifacts.plan.plan import DEFAULT_MINUTES, DEFAULT_SILENT_MINUTES, Job, Plan, load_plan
from artifacts.recipe.recipe import NamedSource
from artifacts.run.dry_run import dry_run
from artifacts.run.lookup import Lookup
from artifacts.store.digest_memory import DigestMemory
from small_model import MODEL_RECIPE, write_pipeline

pytestmark = pytest.mark.usefixtures("here")


def plan_of(recipe: str = MODEL_RECIPE) -> Plan:
    """Return the plan of a project with this recipe."""
    write_pipeline(recipe)
    return load_plan()


def test_a_job_has_all_that_decides_its_bytes() -> None:
    job = plan_of().jobs["small:shards"]
    assert isinstance(job, Job)
    assert (job.full_name, job.step, job.is_layout) == ("small:shards", "shard_weights", False)
    assert job.params == {"max_shard_bytes": 40000}
    assert job.inputs == {"model": "small:model"}
    assert set(job.tools) == {"onnx", "protobuf"}
    assert job.doc.startswith("Spread a model's weights over files")
    assert str(job.location("params", "max_shard_bytes")) == "recipes/small.yaml:7:31"
    assert str(job.location()) == "recipes/small.yaml:4:3"


def test_the_about_text_of_a_target_is_shown_and_decides_no_bytes() -> None:
    plain = plan_of().jobs["small:again"]
    told = plan_of(MODEL_RECIPE.replace("  again:\n", "  again:\n    about: shards of shards\n")).jobs["small:again"]
    assert isinstance(plain, Job)
    assert isinstance(told, Job)
    assert told.doc == "shards of shards"
    contents, memory = {"small:shards": "0" * 64}, DigestMemory(Path("memory"))
    assert told.identity(contents, memory) == plain.identity(contents, memory)


def test_defaults_are_filled_in_before_anything_is_decided() -> None:
    job = plan_of().jobs["small:again"]
    assert isinstance(job, Job)
    assert job.params == {"max_shard_bytes": 1_500_000_000}


def test_the_time_of_a_step_is_bounded_by_its_target_else_its_recipe_else_by_default() -> None:
    def limits(recipe: str) -> list[tuple[float, float]]:
        jobs = [plan_of(recipe).jobs[f"small:{name}"] for name in ("shards", "again")]
        return [(job.minutes, job.silent_minutes) for job in jobs if isinstance(job, Job)]

    assert limits(MODEL_RECIPE) == [(DEFAULT_MINUTES, DEFAULT_SILENT_MINUTES)] * 2
    of_one = MODEL_RECIPE.replace("  again:\n", "  again:\n    resources: {silent_minutes: 2.5}\n")
    assert limits("resources: {minutes: 30, silent_minutes: 7}\n" + of_one) == [(30, 7), (30, 2.5)]


def test_inputs_come_before_their_consumers_else_the_recipe_s_order_is_kept() -> None:
    recipe = MODEL_RECIPE.replace("targets:\n", "targets:\n  last: {step: shard_weights, inputs: {model: again}}\n")
    assert list(plan_of(recipe).jobs) == [f"small:{name}" for name in ("model", "shards", "again", "last", "flat")]


def chain(links: int, first: str = "model") -> list[str]:
    """Return the lines of targets, each with the one before it as input."""
    names = [first, *(f"t{number}" for number in range(links))]
    pairs = zip(names[1:], names[:-1], strict=True)
    return [f"  {name}: {{step: shard_weights, inputs: {{model: {source}}}}}" for name, source in pairs]


@pytest.mark.parametrize("order", [1, -1], ids=["inputs first", "inputs last"])
def test_a_chain_of_targets_may_be_longer_than_the_stack(order: int) -> None:
    lines = chain(1500)[::order]
    plan = plan_of("\n".join(["sources: {model: {folder: model}}", "targets:", *lines]))
    names = ["model", *(f"t{number}" for number in range(1500))]
    assert list(plan.jobs) == plan.selected(["t1499"]) == [f"small:{name}" for name in names]
    rows = dry_run(plan, [])
    assert [row.status for row in rows] == ["found"] + ["built"] * 1500
    assert Lookup(plan).current("small:t1499") is None


def test_a_long_cycle_is_reported_in_one_line_of_bounded_length() -> None:
    with pytest.raises(
        RecipeError, match=r"recipes/small.yaml:\d+:\d+: targets.t\d+.inputs: dependency cycle: "
    ) as caught:
        plan_of("\n".join(["targets:", *chain(1500, first="t1499")]))
    assert len(caught.value.fact) == 1000


def test_a_word_means_a_target_of_the_default_recipe_or_of_the_one_it_names() -> None:
    plan = plan_of()
    assert plan.resolve("shards") == plan.resolve("small:shards") == "small:shards"


@pytest.mark.parametrize(
    ("word", "fix"),
    [("shard", "did you mean 'shards'?"), ("small:shard", "did you mean 'small:shards'?"),
     ("smal", "did you mean 'small'?"),
     ("qqqqqq", "see them all with: doit list --all")],
)  # fmt: skip
def test_an_unknown_word_is_answered_with_the_nearest(word: str, fix: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plan_of().resolve(word)
    assert (caught.value.fact, caught.value.fix) == (f"no target is called '{word}'", fix)


@pytest.mark.parametrize(
    ("word", "fix"),
    [("shad*", "did you mean 'shards'?"), ("siz_*", "did you mean 'size_*'?"),
     ("sizes_fp3?", "did you mean 'size_fp32'?"), ("small:siz_*", "did you mean 'small:size_*'?"),
     ("qqqqqq*", "see them all with: doit list --all")],
)  # fmt: skip
def test_a_pattern_that_nothing_matches_is_answered_with_the_nearest_pattern_or_name(word: str, fix: str) -> None:
    sizes = "".join(f"  size_{form}: {{step: measure_size, inputs: {{model: model}}}}\n" for form in ("fp32", "int8"))
    plan = plan_of(MODEL_RECIPE.replace("targets:\n", f"targets:\n{sizes}"))
    with pytest.raises(RecipeError, match=rf"no target matches '{re.escape(word)}'") as caught:
        plan.meant(word)
    assert caught.value.fix.startswith(fix)


def test_an_unknown_recipe_and_an_unknown_target_have_different_errors() -> None:
    for word, fix in (("smal:shards", "did you mean 'small'?"), ("other:shards", "write recipes/other.yaml")):
        with pytest.raises(RecipeError, match=f"no recipe is called '{word[:5].rstrip(':')}'") as caught:
            plan_of().resolve(word)
        assert caught.value.fix.startswith(fix)


def test_a_pattern_means_all_that_fits_it() -> None:
    plan = plan_of()
    assert plan.meant("*a*") == plan.meant("small:*a*") == ["small:shards", "small:again", "small:flat"]
    assert plan.selected(["sha*"]) == ["small:model", "small:shards"]


def test_selected_targets_come_with_all_their_inputs() -> None:
    plan = plan_of()
    assert plan.selected(["again"]) == ["small:model", "small:shards", "small:again"]
    assert plan.selected(["model", "shards"]) == ["small:model", "small:shards"]
    assert plan.selected([]) == plan.selected(["small"]) == list(plan.jobs)


def test_a_source_is_a_job_without_a_step() -> None:
    job = plan_of().jobs["small:model"]
    assert isinstance(job, NamedSource)
    assert job.doc == "Source: model"


def test_recipes_have_names_of_their_own() -> None:
    write_pipeline()
    Path("recipes/other.yaml").write_text("extends: small.yaml\ntargets: {again: null}\nlayouts: null\n")
    plan = load_plan()
    assert plan.selected(["other"]) == ["other:model", "other:shards"]
    assert plan.resolve("other:shards") == "other:shards"
    with pytest.raises(RecipeError, match="'other:again'"):
        plan.resolve("other:again")


@pytest.mark.parametrize(
    ("words", "read"),
    [([], ["small"]), (["shards"], ["small"]), (["nothing"], ["small"]), (["small:shards"], ["small"]),
     (["small", "broken"], None), (["broken:shards"], None), (["brokn:shards"], None), (["shar*"], None), (None, None)],
)  # fmt: skip
def test_only_recipes_that_the_words_refer_to_are_read(words: list[str] | None, read: list[str] | None) -> None:
    write_pipeline()
    Path("recipes/broken.yaml").write_text("targets: [")
    if read is None:
        with pytest.raises(RecipeError, match=r"recipes/broken.yaml:2:1: "):
            load_plan(words=words)
    else:
        assert list(dict.fromkeys(job.loaded.name for job in load_plan(words=words).jobs.values())) == read


def test_a_step_that_cannot_be_loaded_is_reported_with_its_location(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_module: object) -> None:
        raise SyntaxError("invalid syntax (shard_weights.py, line 3)")

    monkeypatch.setattr("artifacts.plan.step_files._check_step", fail)
    with pytest.raises(RecipeError, match=r"small.yaml:\d+:\d+: .*: SyntaxError: invalid syntax") as caught:
        plan_of()
    assert caught.value.fix == "correct artifacts/steps/shard_weights.py"


def test_a_tool_without_a_pin_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("artifacts.steps.shard_weights.TOOLS", ("onnx", "mytool"))
    write_pipeline()
    with pytest.raises(RecipeError) as caught:
        load_plan()
    assert caught.value.fact == (
        "constraints.txt: 'mytool', which decides the bytes of step 'shard_weights', is not pinned"
    )
    assert caught.value.fix == "add its version, for example 'mytool==1.2.3'"
    with Path("constraints.txt").open("a") as file:
        file.write("mytool==1.0\n")
    job = load_plan().jobs["small:shards"]
    assert isinstance(job, Job)
    assert job.tools["mytool"] == "1.0"


def test_a_recipes_name_means_its_default_targets_with_what_they_need() -> None:
    plan = plan_of("default: [again]\n" + MODEL_RECIPE)
    assert plan.meant("small") == ["small:again"]
    assert plan.selected(["small"]) == ["small:model", "small:shards", "small:again"]
