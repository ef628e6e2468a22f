"""What an input is that a recipe does not write; what a base recipe lacks is told at once, with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.errors import RecipeError
from artifacts.plan.plan import Job, Plan, load_plan
from small_model import MODEL_RECIPE, write_pipeline

pytestmark = pytest.mark.usefixtures("here")

FAMILY = "extends: artifacts/parakeet-tdt\n"
CHECKPOINT = FAMILY + "sources:\n  checkpoint: {file: a}\n"
SPEECH = CHECKPOINT + "  evaluation: {folder: b}\n  calibration: {folder: c}\n"


def plan_of(recipe: str) -> Plan:
    """Return the plan of a project with this recipe."""
    write_pipeline(recipe)
    return load_plan()


def test_an_input_that_is_not_written_is_the_source_or_target_of_its_name() -> None:
    short = MODEL_RECIPE.replace("    inputs: {model: model}\n", "", 1)
    assert short != MODEL_RECIPE
    job = plan_of(short).jobs["small:shards"]
    assert isinstance(job, Job)
    assert job.inputs == {"model": "small:model"}


def test_a_target_is_not_its_own_input() -> None:
    recipe = "targets:\n  model: {step: shard_weights}\n"
    with pytest.raises(RecipeError, match=r"small.yaml:2:10: targets.model.inputs: step 'shard_weights' needs"):
        plan_of(recipe)


def test_an_input_with_a_default_is_taken_only_where_it_is_written() -> None:
    recipe = "sources: {encoder_int8: {folder: a}}\ntargets:\n" + "".join(
        f"  {name}: {{step: shard_weights, inputs: {{model: encoder_int8}}}}\n"
        for name in ("encoder_fp32", "decoder_joint_fp32", "tokens", "model_meta", "preprocessor")
    )
    layout = "layouts: {onnx-asr: {step: lay_out_onnx_asr}}\n"
    write_pipeline(recipe + layout)
    job = load_plan().jobs["small:onnx-asr"]
    assert isinstance(job, Job)
    assert "encoder_int8" not in job.inputs
    assert job.inputs["tokens"] == "small:tokens"


def test_a_misspelt_target_of_the_base_is_told_the_nearest() -> None:
    recipe = "extends: artifacts/parakeet-tdt\ntargets: {shard_fp33: {params: {max_shard_bytes: 7}}}\n"
    with pytest.raises(RecipeError, match=r"small.yaml:2:23: targets.shard_fp33.step: this key is missing") as caught:
        plan_of(recipe)
    assert caught.value.fix == "add it; or did you mean 'shard_fp32' by 'shard_fp33'?"


@pytest.mark.parametrize(
    ("recipe", "fact", "fix"),
    [
        (
            CHECKPOINT,
            "2:1: sources: 'calibration' and 'evaluation' are missing, which its base needs",
            "add for example 'calibration: {folder: ../calibration, optional: true}': while it is not there, "
            "what needs it is skipped",
        ),
        (
            CHECKPOINT + "  calibration: {folder: c}\n",
            "2:1: sources: 'evaluation' is missing, which its base needs",
            "add for example 'evaluation: {folder: ../evaluation, optional: true}': while it is not there, "
            "what needs it is skipped",
        ),
        (
            FAMILY,
            "1:1: sources: 'checkpoint', 'calibration' and 'evaluation' are missing, which its base needs",
            "add for example 'checkpoint: {file: PATH}'",
        ),
        (
            FAMILY + "sources: {checkpiont: {file: a}}\n",
            "2:1: sources: 'checkpoint', 'calibration' and 'evaluation' are missing, which its base needs",
            "did you mean 'checkpoint' by 'checkpiont'?",
        ),
        (
            CHECKPOINT + "targets: {tokens: null}\n",
            "4:11: targets.tokens: is removed, and 'wer_fp32' of its base needs it",
            "keep it, or add targets: {wer_fp32: null, wer_fp16: null, wer_int8: null, wer_int8_smoothquant: null} and "
            "layouts: {onnx-asr: null}",
        ),
        (
            SPEECH + "targets: {encoder_int4: null}\n",
            "6:11: targets.encoder_int4: is removed, and 'size_int4' of its base needs it",
            "keep it, or add targets: {size_int4: null}",
        ),
        (
            SPEECH + "targets: {encoder_int4: null, encoder_rounded: null}\n",
            "6:11: targets.encoder_int4: is removed, and 'size_int4' of its base needs it",
            "keep it, or add targets: {size_int4: null, size_rounded: null}",
        ),
        (
            SPEECH + "targets: null\n",
            "6:1: targets.encoder_fp32: is removed, and 'onnx-asr' of its base needs it",
            "keep it, or add layouts: {onnx-asr: null}",
        ),
    ],
)
def test_what_a_base_needs_and_no_recipe_has_is_told_at_once(recipe: str, fact: str, fix: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plan_of(recipe)
    assert (caught.value.fact, caught.value.fix) == (f"recipes/small.yaml:{fact}", fix)


def test_a_recipe_becomes_whole_by_what_the_errors_say() -> None:
    recipe = FAMILY + "sources:\n  unneeded: {file: a}\n"
    for name in ("checkpoint", "calibration", "evaluation"):
        with pytest.raises(RecipeError) as caught:
            plan_of(recipe)
        recipe += f"  {caught.value.fix.split(chr(39))[1]}\n"
        assert name in recipe
    assert len(plan_of(recipe).jobs) > 40


def test_what_a_base_needs_may_be_removed_where_the_fix_says() -> None:
    added = "targets: {encoder_int4: null, encoder_rounded: null, size_int4: null, size_rounded: null}\n"
    assert "small:size_int4" not in plan_of(SPEECH + added).jobs


def test_a_source_of_the_base_s_base_is_told_at_extends() -> None:
    write_pipeline("# mine\nextends: mid.yaml\n")
    Path("recipes/mid.yaml").write_text(CHECKPOINT)
    with pytest.raises(RecipeError, match=r"recipes/small.yaml:2:1: sources: 'calibration' and 'evaluation' are"):
        load_plan(words=["small"])


@pytest.mark.parametrize(
    ("target", "fact"),
    [
        ("{step: shard_wieghts}", "no step is called 'shard_wieghts'"),
        ("{step: shard_weights, inputs: {modl: encoder_fp32}}", "step 'shard_weights' takes no input 'modl'"),
        ("{step: shard_weights, inputs: {model: encoder}}", "no source or target is called 'encoder'"),
        ("{step: shard_weights}", "step 'shard_weights' needs the input 'model'"),
        ("{step: shard_weights, inputs: {model: x}}", "dependency cycle: x -> x"),
        ("{step: shard_weights, inputs: {model: tokens}, params: {max: 1}}", "unknown key 'max'"),
    ],
)
def test_a_mistake_of_the_recipe_itself_is_told_before_what_its_base_needs(target: str, fact: str) -> None:
    with pytest.raises(RecipeError, match=rf"recipes/small.yaml:4:\d+: targets.x.*: {fact}"):
        plan_of(f"{CHECKPOINT}targets: {{x: {target}}}\n")
