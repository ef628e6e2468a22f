"""Times calibration against plain inference of the same speech, at the size of a 0.6b encoder.

    doit preprocessor && python benchmarks/calibration.py                  # 2.42 GB; needs 8 GB of disk and of memory
    doit preprocessor && python benchmarks/calibration.py --gigabytes 0.2  # a quick look

Both run the synthetic encoder over the same embedded calibration speech (no windows are joined beside), each in a
process of its own, taking turns: one utterance at a time, one thread. A ratio is the median of the pairs' ratios. Both
processes load the model, and calibration also writes the model that it measures with.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
PREPROCESSOR = ROOT / "cache" / "tiny" / "preprocessor"
CORPUS = ROOT / "embedded" / "tiny" / "calibration"
SLICES = ("clean", "long_60s")
RESULTS = Path(__file__).with_name("calibration.json")
MIB = 2**20


def inference(source: Path, _out: Path) -> None:
    from artifacts.graph.model_file import find_model
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.frontend import OnnxEncoder, Preprocessor

    preprocess, encode = Preprocessor(find_model(PREPROCESSOR), 1), OnnxEncoder(find_model(source), 1)
    speech = read_corpus(CORPUS, SLICES)
    for utterance in speech.utterances:
        encode.encode(*preprocess.features(speech.waveform(utterance)))


def calibrate_activations(source: Path, out: Path) -> None:
    from artifacts.steps import calibrate_activations as step

    step.run(out, step.Params(slices=SLICES, long_seconds=None), model=source, preprocessor=PREPROCESSOR, corpus=CORPUS)


CHILDREN = {"inference": inference, "calibrate_activations": calibrate_activations}


def be_child(name: str, source: Path, out: Path) -> None:
    started, began = time.monotonic(), time.process_time()
    CHILDREN[name](source, out)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) * 1024
    print(
        json.dumps(
            {"wall_seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - began, "peak_bytes": peak}
        )
    )


def main() -> None:
    from streaming import timed, versions
    from synthetic_encoder import write_encoder

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.42, help="size of the encoder (%(default)s)")
    parser.add_argument("--pairs", type=int, default=2, help="runs of the pair (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where to work (the system's temporary folder)")
    arguments = parser.parse_args()
    if not PREPROCESSOR.is_dir():
        raise SystemExit(f"there is no {PREPROCESSOR.relative_to(ROOT)}\n  fix: doit preprocessor")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CHILDREN}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source, out = Path(folder, "source"), Path(folder, "out")
        source.mkdir()
        write_encoder(source, arguments.gigabytes)
        for _ in range(arguments.pairs):
            for name, kept in runs.items():
                kept.append(timed([sys.executable, __file__, "--child", name, str(source), str(out)], out))
                print(name, {key: round(value, 2) for key, value in kept[-1].items()}, file=sys.stderr, flush=True)
    plain, ours = runs.values()
    results = {
        "gigabytes": arguments.gigabytes,
        "pairs": arguments.pairs,
        "versions": versions(),
        "inference_seconds": round(median(run["wall_seconds"] for run in plain), 1),
        "calibration_seconds": round(median(run["wall_seconds"] for run in ours), 1),
        "wall_ratio": _ratio(ours, plain, "wall_seconds"),
        "cpu_ratio": _ratio(ours, plain, "cpu_seconds"),
        "inference_peak_mib": round(max(run["peak_bytes"] for run in plain) / MIB),
        "calibration_peak_mib": round(max(run["peak_bytes"] for run in ours) / MIB),
    }
    print(json.dumps(results, indent=2))
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _ratio(ours: list[dict[str, float]], plain: list[dict[str, float]], key: str) -> float:
    return round(median(one[key] / other[key] for one, other in zip(ours, plain, strict=True)), 2)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        be_child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
