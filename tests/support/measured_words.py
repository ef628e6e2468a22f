"""Run a recipe's measurements of words on some slices only: the whole evaluation takes minutes for each form."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from artifacts.plan.plan import Job, load_plan
from conftest import ROOT, run_doit


def measure_words(folder: Path, recipe: str, targets: Sequence[str], slices: Sequence[str]) -> dict[str, Path]:
    """Build the inputs of targets that measure words, and run their steps on these slices; return their folders."""
    plan = load_plan(ROOT / "pipeline.yaml", [recipe])
    jobs = {target: plan.jobs[f"{recipe}:{target}"] for target in targets}
    measuring = {target: job for target, job in jobs.items() if isinstance(job, Job)}
    assert measuring.keys() == jobs.keys()
    made = {
        source for job in measuring.values() for source in job.inputs.values() if not source.endswith(":evaluation")
    }
    run_doit("-n", "2", *sorted(made))
    for target, job in measuring.items():
        step = import_module(f"artifacts.steps.{job.step}")
        names = {name: source.partition(":")[2] for name, source in job.inputs.items()}
        inputs = {name: ROOT / "cache" / recipe / source for name, source in names.items() if name != "corpus"}
        (folder / target).mkdir()
        params = step.Params(**job.params | {"slices": tuple(slices)})
        step.run(folder / target, params, corpus=ROOT / "embedded" / "tiny" / "evaluation", **inputs)
    return {target: folder / target for target in targets}
