"""What other processors make of the embedded checkpoint: the bytes of every step, errors and words of every int8 form.

    doit -n 2 tiny tiny-streaming tiny-ncnn lstm-transducer && python benchmarks/processors.py   # some two hours
    python benchmarks/processors.py --only bytes --processors Nehalem # the quick half

This machine's processor beside two that QEMU's user-mode emulator (Debian: qemu-user) runs with the same interpreter
and libraries: Haswell has AVX2 and no VNNI, Nehalem SSE4.2 and no fused multiply-add. `docs/processors.md` has the
tables.

Emulated, a second of speech takes ten: calibration and words are those of a few utterances, spread over all slices of
short recordings, on every processor the same. Programs that a step starts (pnnx) are not emulated.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
CACHE = ROOT / "cache"
SPEECH = ROOT / "recipes" / "tiny"
CHILD = Path(__file__).with_name("processor_child.py")
RESULTS = Path(__file__).with_name("processors.json")

EMULATOR = "qemu-x86_64"
NATIVE = "native"
EMULATED = ("Haswell", "Nehalem")
SHORT_SLICES = ("clean", "noisy_1db", "noisy_minus_1db", "soft_endings")

MEASURING = ("measure_wer", "measure_drift", "measure_streaming_wer", "measure_ncnn_wer", "calibrate_ncnn")
"""Their files hold what the processor computed; what differs there is in the tables of errors and words."""

RECIPES = ("tiny", "tiny-outliers", "tiny-long", "tiny-streaming", "tiny-ncnn", "lstm-transducer")

DECODERS = ("decoder_joint_fp32", "decoder_joint_int8", "decoder_joint_nbits")
FORMS = {
    "int8": ("encoder_int8", "decoder_joint_int8"),
    "int8_smoothquant": ("encoder_int8_smoothquant", "decoder_joint_int8"),
    "int8_dynamic": ("encoder_int8_dynamic", "decoder_joint_int8"),
    "int8_weights": ("encoder_int8_weights", "decoder_joint_fp32"),
    "int4": ("encoder_int4", "decoder_joint_nbits"),
}
"""Of `tiny`: what each form's words are made by."""


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
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    from artifacts.processor import processor

    results["native"] = processor()
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
                found = {name: one.result() for name, one in work.items()}
            results[part] = TABLES[part](found)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


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
    folder = CACHE / RECIPES[0]
    if part == "bytes":
        names = _targets(recipes)
        return [("build", {"out": str(out), "names": names, "calibration": str(corpora.calibration)})]
    if part == "errors":
        encoders = ["encoder_fp32", *(encoder for encoder, _ in FORMS.values())]
        return [
            ("decoder_errors", {"models": {one: str(folder / one) for one in DECODERS}}),
            (
                "encoder_errors",
                {"models": {one: str(folder / one) for one in encoders}, "corpus": str(corpora.calibration)},
            ),
        ]
    pairs = ({"fp32": ("encoder_fp32", "decoder_joint_fp32")} if name == NATIVE else {}) | FORMS
    forms = {form: [str(folder / one) for one in pair] for form, pair in pairs.items()}
    return [("words", {"forms": forms, "corpus": str(corpora.evaluation), "out": str(out)})]


def _run(part: str, name: str, out: Path, corpora: Corpora, recipes: list[str]) -> list[Any]:
    """What the tasks of a part print on a processor."""
    results = []
    for task, asked in _asked(part, name, out, corpora, recipes):
        command = [sys.executable, str(CHILD), task, json.dumps(asked)]
        if name != NATIVE:
            command = [EMULATOR, "-cpu", name, *command]
        log = out / f"{task}.log"
        with log.open("w") as said, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as child:
            for line in child.stdout or ():
                results.append(json.loads(line))
                print(f"{name}: {line[:150].rstrip()}", file=sys.stderr, flush=True)
        if child.returncode:
            raise SystemExit(f"{task} on {name} ended with {child.returncode}:\n{log.read_text()[-4000:]}")
    return results


def _targets(recipes: list[str]) -> list[str]:
    """The targets of `tiny`, and of the other recipes one for each step that is not among these; no measurements."""
    from artifacts.plan import Job, load_plan

    plan = load_plan(ROOT / "pipeline.yaml", recipes)
    jobs = {name: job for name, job in plan.jobs.items() if isinstance(job, Job) and job.step not in MEASURING}
    seen: set[str] = set()
    names = []
    for name, job in jobs.items():
        names += [name] if job.loaded.name == "tiny" or job.step not in seen else []
        seen.add(job.step)
    return names


def _bytes(found: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """A row a target: its step, and for each processor the files that differ from this one's."""
    native = {row["target"]: row for row in found.pop(NATIVE)}
    rows = []
    for target, row in native.items():
        differs = {}
        for name, others in found.items():
            other = next(one for one in others if one["target"] == target)
            files = sorted(set(row["files"]) | set(other["files"]))
            differs[name] = [file for file in files if row["files"].get(file) != other["files"].get(file)]
        rows.append({"target": target, "step": row["step"], "differs": differs})
    for one in rows:
        shown = {name: ", ".join(files) or "equal" for name, files in one["differs"].items()}
        print(f"| `{one['target']}` | `{one['step']}` | {' | '.join(shown.values())} |")
    return rows


def _errors(found: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """A row a model: mean and worst error on each processor."""
    rows = []
    for row in found[NATIVE]:
        same = {name: next(one for one in rows_ if one["form"] == row["form"]) for name, rows_ in found.items()}
        errors = {name: {key: round(one[key], 5) for key in ("mean", "worst")} for name, one in same.items()}
        rows.append({"form": row["form"], "errors": errors})
        shown = [f"{one['mean']:.4f} / {one['worst']:.4f}" for one in errors.values()]
        print(f"| `{row['form']}` | {' | '.join(shown)} |")
    return rows


def _words(found: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """A row a form: points lost to this machine's fp32 on each processor, with their standard error."""
    fp32 = next(row for row in found[NATIVE] if row["form"] == "fp32")
    rows = []
    for form in FORMS:
        lost = {}
        for name, forms in found.items():
            wrong = next(row["wrong"] for row in forms if row["form"] == form)
            more = [now - then for now, then in zip(wrong, fp32["wrong"], strict=True)]
            error = 100 * (len(more) * statistics.variance(more)) ** 0.5 / fp32["words"]
            lost[name] = {"points": round(100 * sum(more) / fp32["words"], 3), "standard_error": round(error, 3)}
        rows.append({"form": form, "words": fp32["words"], "lost": lost})
        shown = [f"{one['points']:+.2f} ({one['standard_error']:.2f})" for one in lost.values()]
        print(f"| {form} | {' | '.join(shown)} |")
    return rows


TABLES = {"bytes": _bytes, "errors": _errors, "words": _words}

if __name__ == "__main__":
    main()
