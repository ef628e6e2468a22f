"""The work that `processors.py` runs on each processor, natively or emulated: python processor_child.py TASK JSON.

Prints one JSON line for each result. All of it runs in this one process, since what a process starts is not emulated.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CACHE = ROOT / "cache"

# Params for a corpus of a few utterances: emulated, a second of speech takes ten.
SHORTER: dict[str, dict[str, Any]] = {"calibrate_activations": {"min_seconds": 0, "long_seconds": None}}

Forms = dict[str, tuple[str, str]]


def build(out: str, names: Sequence[str], calibration: str) -> Iterator[dict[str, Any]]:
    """Run the steps of these targets, inputs first. What they need and is not among them is read from the cache."""
    from artifacts.plan.plan import Job, load_plan

    plan = load_plan(ROOT / "pipeline.yaml", list(names))
    made: dict[str, Path] = {}
    for name, job in plan.jobs.items():
        if not isinstance(job, Job) or name not in names:
            continue
        step = import_module(f"artifacts.steps.{job.step}")
        folder = Path(out) / name.replace(":", "/")
        folder.mkdir(parents=True)
        inputs = {given: made.get(source) or _input(plan, source, calibration) for given, source in job.inputs.items()}
        params = step.Params.model_validate_json(json.dumps(job.params | SHORTER.get(job.step, {})))
        started = time.monotonic()
        step.run(folder, params, **inputs)
        made[name] = folder
        yield {"name": name, "step": job.step, "seconds": time.monotonic() - started, "files": digests(folder)}


def _input(plan: Any, name: str, calibration: str) -> Path:
    from artifacts.recipe.recipe import NamedSource

    recipe, _, short = name.partition(":")
    job = plan.jobs[name]
    if not isinstance(job, NamedSource):
        return CACHE / recipe / short
    return Path(calibration) if short == "calibration" else job.path


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def decoder_errors(models: dict[str, str]) -> Iterator[dict[str, Any]]:
    """How far the first decoder_joint and each other one are apart over 50 inputs, by their largest number."""
    yield from _errors(models, lambda session: [_decoder_feeds(session, seed) for seed in range(50)])


def encoder_errors(models: dict[str, str], corpus: str) -> Iterator[dict[str, Any]]:
    """The same of encoders, over the utterances of a corpus."""
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.frontend import Preprocessor

    preprocess = Preprocessor(CACHE / "tiny" / "preprocessor" / "preprocessor.onnx", 1)
    speech = read_corpus(Path(corpus))
    features = [preprocess.features(speech.waveform(one)) for one in speech.utterances]
    yield from _errors(models, lambda _: [{"audio_signal": audio, "length": length} for audio, length in features])


def _errors(models: dict[str, str], feeds: Callable[[Any], list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    import onnxruntime

    expected: list[Any] = []
    for form, folder in models.items():
        (path,) = Path(folder).glob("*.onnx")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = [session.run(None, feed) for feed in feeds(session)]
        expected = expected or found
        apart = [max(map(_apart, one, reference)) for one, reference in zip(found, expected, strict=True)]
        if found is not expected:
            yield {"name": form, "mean": sum(apart) / len(apart), "worst": max(apart)}


def _decoder_feeds(session: Any, seed: int) -> dict[str, Any]:
    import numpy as np

    random = np.random.default_rng(seed)
    feeds: dict[str, Any] = {}
    for given in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in given.shape]
        if given.type == "tensor(float)":
            feeds[given.name] = random.standard_normal(shape).astype(np.float32)
        else:
            integers = np.ones(shape) if "length" in given.name else random.integers(0, 129, shape)
            feeds[given.name] = integers.astype(given.type.removeprefix("tensor(").removesuffix(")"))
    return feeds


def _apart(found: Any, expected: Any) -> float:
    import numpy as np

    return float(np.abs(found.astype(np.float64) - expected).max() / max(np.abs(expected).max(), 1e-9))


def words(forms: Forms, corpus: str, out: str) -> Iterator[dict[str, Any]]:
    """The wrong words of each utterance, for each form's encoder and decoder_joint."""
    from artifacts.steps import measure_wer

    for form, (encoder, decoder_joint) in forms.items():
        folder = Path(out) / form
        folder.mkdir(parents=True)
        shared = {name: CACHE / "tiny" / name for name in ("preprocessor", "tokens", "model_meta")}
        models = {"encoder": Path(encoder), "decoder_joint": Path(decoder_joint)}
        measure_wer.run(folder, measure_wer.Params(), **models, **shared, corpus=Path(corpus))
        lines = [json.loads(line) for line in (folder / "hypotheses.jsonl").read_text().splitlines()]
        kinds = ("substitutions", "deletions", "insertions")
        wrong = [sum(int(line[kind]) for kind in kinds) for line in lines]
        texts = [line["hypothesis"] for line in lines]
        yield {"name": form, "words": sum(len(line["text"].split()) for line in lines), "wrong": wrong, "texts": texts}
        shutil.rmtree(folder)


TASKS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {
    task.__name__: task for task in (build, decoder_errors, encoder_errors, words)
}

if __name__ == "__main__":
    for result in TASKS[sys.argv[1]](**json.loads(sys.argv[2])):
        print(json.dumps(result), flush=True)
