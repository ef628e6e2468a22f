"""Compare bytes of every step, errors and words of every int8 form on several processors.

    doit -n 2 tiny tiny-outliers tiny-long:evaluation tiny-streaming tiny-ncnn lstm-transducer
    python benchmarks/processors.py                                    # takes about two hours
    python benchmarks/processors.py --only bytes --processors Nehalem  # takes ten minutes

This machine's processor beside two that QEMU's user-mode emulator (Debian: qemu-user) runs with the same interpreter
and libraries: Haswell has AVX2 and no VNNI, Nehalem SSE4.2 and no fused multiply-add. `docs/processors.md` has the
tables.

Emulated, a second of speech takes ten: calibration and words are those of a few utterances, spread over all slices of
short recordings, on every processor the same. Programs that a step starts (pnnx) are not emulated. What was measured on
other processors before is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
CACHE = ROOT / "cache"
SPEECH = ROOT / "embedded" / "tiny"
CHILD = Path(__file__).with_name("processor_child.py")
RESULTS = Path(__file__).with_name("processors.json")

EMULATOR = "qemu-x86_64"
# The emulator crashes on what oneDNN compiles for AVX2, by which torch runs an LSTM. It decides no bytes.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": "SSE41"}

NATIVE = "native"
EMULATED = ("Haswell", "Nehalem")
SHORT_SLICES = ("clean", "noisy_1db", "noisy_minus_1db", "soft_endings")

# Their outputs are measurements: see the tables of errors and words.
MEASURING = (
    "measure_wer", "measure_drift", "measure_streaming_wer", "measure_ncnn_wer", "measure_sherpa_ncnn_wer",
    "calibrate_ncnn", "calibrate_sherpa_ncnn",
)  # fmt: skip

RECIPES = ("tiny", "tiny-outliers", "tiny-long", "tiny-streaming", "tiny-ncnn", "lstm-transducer")

DECODERS = ("decoder_joint_fp32", "decoder_joint_int8_dynamic", "decoder_joint_int8")
# The targets that transcribe in each form.
FORMS = {
    "int8": ("tiny/encoder_int8", "tiny/decoder_joint_int8_dynamic"),
    "int8_smoothquant": ("tiny/encoder_int8_smoothquant", "tiny/decoder_joint_int8_dynamic"),
    "int8_dynamic": ("tiny/encoder_int8_dynamic", "tiny/decoder_joint_int8_dynamic"),
    "int8_weights": ("tiny/encoder_int8_weights", "tiny/decoder_joint_fp32"),
    "int4": ("tiny/encoder_int4", "tiny/decoder_joint_int8"),
    "int8 with an outlier channel": ("tiny-outliers/encoder_int8", "tiny/decoder_joint_int8_dynamic"),
    "int8_smoothquant with one": ("tiny-outliers/encoder_int8_smoothquant", "tiny/decoder_joint_int8_dynamic"),
}


class Corpora(NamedTuple):
    """Folders with a few utterances each."""

    calibration: Path
    evaluation: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("bytes", "errors", "words"), help="one of the three tables (all)")
    parser.add_argument(
        "--processors", nargs="+", choices=EMULATED, default=list(EMULATED), help="emulated ones (both)"
    )
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), help="whose steps run (all)")
    parser.add_argument("--utterances", type=int, default=4, help="of each slice, for words (%(default)s)")
    arguments = parser.parse_args()
    if shutil.which(EMULATOR) is None:
        raise SystemExit(f"{EMULATOR} is not installed\n  fix: apt-get install qemu-user")
    parts = [arguments.only] if arguments.only else ["bytes", "errors", "words"]
    from artifacts.runtime.processor import processor

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        corpora = Corpora(
            _part_of(SPEECH / "calibration", folder / "calibration", 2),
            _part_of(SPEECH / "evaluation", folder / "evaluation", arguments.utterances),
        )
        processors = [NATIVE, *arguments.processors]
        for part in parts:
            for name in processors:
                (folder / part / name).mkdir(parents=True)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                work = {
                    name: pool.submit(_run, part, name, folder / part / name, corpora, arguments.recipes)
                    for name in processors
                }
                found = {name: {row["name"]: row for row in one.result()} for name, one in work.items()}
            results = _kept()
            for name in arguments.processors:
                results.setdefault("runs", {}).setdefault(part, {})[name] = {
                    "native": processor(), "recipes": arguments.recipes, "utterances": arguments.utterances,
                }  # fmt: skip
            kept = results.setdefault(part, {})
            for row, figures in COMPARED[part](found).items():
                for name, figure in figures.items():
                    kept.setdefault(row, {})[name] = figure
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            for row, figures in kept.items():
                print(f"| `{row}` | {' | '.join(SHOWN[part](figure) for figure in figures.values())} |")


def _kept() -> dict[str, Any]:
    """The results there are."""
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return results


def _part_of(corpus: Path, out: Path, per_slice: int) -> Path:
    """A corpus of the first utterances of each slice of short recordings."""
    lines = [json.loads(line) for line in (corpus / "utterances.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [one for name in SHORT_SLICES for one in [line for line in lines if line["slice"] == name][:per_slice]]
    (out / "clips").mkdir(parents=True)
    for line in kept:
        shutil.copy(corpus / line["audio_filepath"], out / line["audio_filepath"])
    text = "".join(json.dumps(line) + "\n" for line in kept)
    (out / "utterances.jsonl").write_text(text, encoding="utf-8")
    return out


def _asked(part: str, name: str, out: Path, corpora: Corpora, recipes: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """The tasks of `processor_child.py` that make a part of the results."""
    if part == "bytes":
        names = _targets(recipes)
        return [("build", {"out": str(out), "names": names, "calibration": str(corpora.calibration)})]
    if part == "errors":
        decoders = {one: str(CACHE / "tiny" / one) for one in DECODERS}
        encoders = ["tiny/encoder_fp32", *(encoder for encoder, _ in FORMS.values() if encoder.startswith("tiny/"))]
        models = {one.partition("/")[2]: str(CACHE / one) for one in encoders}
        return [
            ("decoder_errors", {"models": decoders}),
            ("encoder_errors", {"models": models, "corpus": str(corpora.calibration)}),
        ]
    pairs = ({"fp32": ("tiny/encoder_fp32", "tiny/decoder_joint_fp32")} if name == NATIVE else {}) | FORMS
    forms = {form: [str(CACHE / one) for one in pair] for form, pair in pairs.items()}
    return [("words", {"forms": forms, "corpus": str(corpora.evaluation), "out": str(out)})]


def _run(part: str, name: str, out: Path, corpora: Corpora, recipes: list[str]) -> list[Any]:
    """What the tasks of a part print on a processor."""
    results = []
    for task, asked in _asked(part, name, out, corpora, recipes):
        command = [sys.executable, str(CHILD), task, json.dumps(asked)]
        if name != NATIVE:
            command = [EMULATOR, "-cpu", name, *command]
        log = out / f"{task}.log"
        environment = os.environ | ENVIRONMENT
        with (
            log.open("w") as said,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment) as child,
        ):
            for line in child.stdout or ():
                results.append(json.loads(line))
                print(f"{name}: {line[:150].rstrip()}", file=sys.stderr, flush=True)
        if child.returncode:
            raise SystemExit(f"{task} on {name} ended with {child.returncode}:\n{log.read_text()[-4000:]}")
    return results


def _targets(recipes: list[str]) -> list[str]:
    """The targets of `tiny`, and of the other recipes one for each step that is not among these; no measurements."""
    from artifacts.plan.plan import Job, load_plan

    plan = load_plan(ROOT / "pipeline.yaml", recipes)
    jobs = {name: job for name, job in plan.jobs.items() if isinstance(job, Job) and job.step not in MEASURING}
    seen: set[str] = set()
    names = []
    for name, job in jobs.items():
        names += [name] if job.loaded.name == "tiny" or job.step not in seen else []
        seen.add(job.step)
    return names


def _bytes(found: Found) -> dict[str, dict[str, Any]]:
    """By target and emulated processor: the files that differ from this machine's."""
    here = found.pop(NATIVE)
    differing: dict[str, dict[str, Any]] = {}
    for target, row in here.items():
        for name, rows in found.items():
            there = rows[target]["files"]
            files = sorted(set(row["files"]) | set(there))
            differs = [file for file in files if row["files"].get(file) != there.get(file)]
            differing.setdefault(f"{target} ({row['step']})", {})[name] = differs
    return differing


def _errors(found: Found) -> dict[str, dict[str, Any]]:
    """By model and processor: mean and worst error."""
    return {
        form: {name: {key: round(rows[form][key], 5) for key in ("mean", "worst")} for name, rows in found.items()}
        for form in found[NATIVE]
    }


def _words(found: Found) -> dict[str, dict[str, Any]]:
    """By form and processor: points lost to this machine's fp32, their standard error, and texts equal to its own."""
    fp32 = found[NATIVE]["fp32"]
    lost: dict[str, dict[str, Any]] = {}
    for form in FORMS:
        for name, rows in found.items():
            more = [now - then for now, then in zip(rows[form]["wrong"], fp32["wrong"], strict=True)]
            error = 100 * (len(more) * statistics.variance(more)) ** 0.5 / fp32["words"]
            texts = zip(rows[form]["texts"], found[NATIVE][form]["texts"], strict=True)
            lost.setdefault(form, {})[name] = {
                "words": fp32["words"],
                "points": round(100 * sum(more) / fp32["words"], 3),
                "error": round(error, 3),
                "utterances": len(more),
                "texts_as_native": sum(there == here for there, here in texts),
            }
    return lost


Found = dict[str, dict[str, dict[str, Any]]]
"""By processor and row: what the child printed."""

COMPARED: dict[str, Callable[[Found], dict[str, dict[str, Any]]]] = {
    "bytes": _bytes,
    "errors": _errors,
    "words": _words,
}

SHOWN: dict[str, Callable[[Any], str]] = {
    "bytes": lambda differs: ", ".join(differs) or "equal",
    "errors": lambda one: f"{one['mean']:.4f} / {one['worst']:.4f}",
    "words": lambda one: "{points:+.2f} ({error:.2f}), {texts_as_native} of {utterances}".format(**one),
}

if __name__ == "__main__":
    main()
