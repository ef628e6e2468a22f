"""Give every step broken inputs and see that each is answered by two lines.

`python -m faults.fuzz_models <count> <seed> [<kind>...]`, in `tests`, prints what is not.

A case is one way to break one input of one step. It runs in a fork of a process that has imported what steps import,
by the child's own `main`, with a bound on its memory and its time.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from faults.model_steps import KINDS, USES, Use
from faults.sound_inputs import sound_inputs

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 30.0
_EXIT_CODES = threading.Lock()
MOST_BYTES = 2 << 30
ADDRESS_SPACE_BYTES = 12 << 30
KITS = ROOT / "src" / "artifacts"
MODULES = [
    ".".join(("artifacts", *path.relative_to(KITS).with_suffix("").parts))
    for kit in ("graph", "ncnn", "speech")
    for path in sorted((KITS / kit).rglob("*.py"))
    if path.stem != "__init__"
]
PRELOADED = [
    "faults.fuzz_models",
    "artifacts.run.child",
    "kaldi_native_fbank",
    "ncnn",
    "numpy",
    "onnx",
    "onnxconverter_common.float16",
    "onnxruntime",
    "onnxruntime.quantization",
    "soundfile",
    *(f"artifacts.steps.{step}" for step in sorted({use.step for use in USES})),
    *MODULES,
]


class Case(NamedTuple):
    """A step whose input `broken` is damaged in the way `damage` of the kind `kind`."""

    use: Use
    broken: str
    kind: str
    damage: str
    seed: int

    def __str__(self) -> str:
        params = " ".join(f"{key}={value}" for key, value in self.use.params.items())
        return f"{self.use.step}({params}) {self.broken}={self.kind}:{self.damage} seed {self.seed}"


@dataclass(frozen=True)
class Verdict:
    """How a case ended; `finding` is empty if it ended as it should."""

    case: Case
    outcome: str
    finding: str
    text: str
    seconds: float


def cases(count: int, seed: int, kinds: Collection[str] = tuple(KINDS)) -> list[Case]:
    """`count` cases, drawn so that each way to break a file comes once before any comes again."""
    rng = random.Random(seed)
    by_damage: dict[tuple[str, str], list[tuple[Use, str]]] = {}
    for use in USES:
        for name, kind in use.broken.items():
            for damage in KINDS[kind] if kind in kinds else ():
                by_damage.setdefault((kind, damage), []).append((use, name))
    for uses in by_damage.values():
        rng.shuffle(uses)
    found: list[Case] = []
    while len(found) < count and by_damage:
        for kind, damage in rng.sample(sorted(by_damage), len(by_damage)):
            use, name = by_damage[kind, damage].pop()
            found.append(Case(use, name, kind, damage, rng.randrange(1 << 30)))
            if not by_damage[kind, damage]:
                del by_damage[kind, damage]
    return found[:count]


def run(count: int, seed: int, kinds: Collection[str] = tuple(KINDS), *, workers: int = 2) -> Counter[str]:
    """Run that many cases and print each finding; the number of cases by how they ended, findings under `FINDING`."""
    counts: Counter[str] = Counter()
    with TemporaryDirectory() as name, ThreadPoolExecutor(workers) as pool:
        folder = Path(name)
        sound = sound_inputs(ROOT / "cache", ROOT / "embedded", folder)
        for number, verdict in enumerate(
            pool.map(lambda item: judge(item[1], folder / str(item[0]), sound), enumerate(cases(count, seed, kinds)))
        ):
            counts["FINDING" if verdict.finding else verdict.outcome] += 1
            if verdict.finding:
                print(f"FINDING {number}: {verdict.case}: {verdict.finding}\n    {verdict.text}", flush=True)
            if os.environ.get("FAULTS_LOG"):
                with Path(os.environ["FAULTS_LOG"]).open("a") as log:
                    log.write(f"{verdict.outcome} {verdict.seconds:.1f}s {verdict.case}: {verdict.text}\n")
    print(dict(counts), flush=True)
    return counts


def judge(case: Case, staging: Path, sound: dict[str, Path]) -> Verdict:
    """Break the input, run the step on it, and say how that ended."""
    inputs = {}
    for name, source in case.use.inputs.items():
        inputs[name] = sound[source]
        if name == case.broken:
            inputs[name] = staging / "inputs" / name
            shutil.copytree(sound[source], inputs[name])
            for path in inputs[name].rglob("*"):
                path.chmod(0o755 if path.is_dir() else 0o644)
    KINDS[case.kind][case.damage](inputs[case.broken], random.Random(case.seed))
    before = _files_of(staging / "inputs")
    for folder in ("files", "work", "tmp"):
        (staging / folder).mkdir()
    context = _forkserver()
    process = context.Process(target=_step, args=(staging, case.use, inputs))
    began = time.monotonic()
    # `start` asks every other process for its exit code as well. A code can be read once, by one thread.
    with _EXIT_CODES:
        process.start()
    wait([process.sentinel], LIMIT_SECONDS)
    seconds = time.monotonic() - began
    with _EXIT_CODES:
        code = process.exitcode
    if code is None:
        with contextlib.suppress(ProcessLookupError):  # it may not lead a group yet
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        wait([process.sentinel])
    outcome, finding, text = _ended(code, staging)
    if code is None and case.damage == "loop_endless" and _runs_on_speech(case.use.step):
        outcome, finding = "stopped", ""  # speech may take hours: `silent_minutes` of the build ends such a step
    if outcome == "signal" and case.kind == "ncnn":
        # ncnn checks no number of a layer when it runs; `run_step` tells such an end in two lines.
        print(f"SIGNAL: {case}", flush=True)
        finding = ""
    if not finding:
        finding = _left(staging, before)
    shutil.rmtree(staging)
    return Verdict(case, outcome, finding, text, seconds)


def _runs_on_speech(step: str) -> bool:
    return bool(getattr(importlib.import_module(f"artifacts.steps.{step}"), "DEPENDS_ON_PROCESSOR", False))


def _forkserver() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _step(staging: Path, use: Use, inputs: dict[str, Path]) -> None:
    """The step's child: its own `main`, and then how much memory it took."""
    from artifacts.run import child

    os.setsid()
    log = os.open(staging / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(staging / "work")
    os.environ["TMPDIR"] = tempfile.tempdir = str(staging / "tmp")
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    spec = {
        "step": use.step,
        "params": dict(use.params),
        "inputs": {name: str(path) for name, path in inputs.items()},
        "tools": {},
        "trusted": [],
        "stamps": {},
        "own_steps": "",
        "readable": [],
        "parent": os.getppid(),
        "progress": os.open(os.devnull, os.O_WRONLY),
    }
    (staging / "spec.json").write_text(json.dumps(spec))
    code = child.main(staging)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    (staging / "peak").write_text(str(max(child.peak_bytes(), children)))
    sys.stdout.flush()
    os._exit(code)


def _ended(code: int | None, staging: Path) -> tuple[str, str, str]:
    log = (staging / "log").read_text(errors="replace") if (staging / "log").exists() else ""
    last = " | ".join(log.strip().splitlines()[-6:])
    if code is None:
        return "hang", f"no end after {LIMIT_SECONDS:.0f} s", last
    if code < 0:
        return "signal", f"signal {-code}", last
    answer = staging / "result.json"
    if code or not answer.is_file():
        return "traceback", f"exit code {code}", last
    peak = int((staging / "peak").read_text())
    result = json.loads(answer.read_text())
    if "error" not in result:
        outcome, text = "success", ""
    else:
        outcome, text = _refusal(result["error"])
    if peak > MOST_BYTES:
        return outcome, f"{peak / 2**30:.1f} GiB", text
    return outcome, "" if outcome in ("success", "refused") else outcome, text


def _refusal(error: dict[str, str]) -> tuple[str, str]:
    from artifacts.errors import StepError

    text = str(StepError(error["fact"], error["fix"]))
    lines = text.split("\n")
    if len(lines) != 2 or not all(line.isprintable() for line in lines):
        return "unprintable", repr(text[:300])
    if error["kind"] != "StepError" or "memory ran out" in text:
        return error["kind"] if error["kind"] != "StepError" else "memory", text.replace("\n", " | ")
    return "refused", text.replace("\n", " | ")


def _left(staging: Path, before: dict[str, tuple[int, int]]) -> str:
    """What was changed or written where nothing may be."""
    if _files_of(staging / "inputs") != before:
        return "changed its inputs"
    allowed = {"inputs", "files", "work", "tmp", "log", "peak", "spec.json", "result.json"}
    others = {path.name for path in staging.iterdir()} - allowed
    return f"wrote {', '.join(sorted(others))}" if others else ""


def _files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def main(words: list[str]) -> int:
    """`<count> <seed>`, and the kinds of files to break unless it is all of `KINDS`."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return int(bool(run(int(words[0]), int(words[1]), words[2:] or tuple(KINDS))["FINDING"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
