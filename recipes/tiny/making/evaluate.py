"""Transcribe a corpus with NeMo from the checkpoint, and print each slice's words, seconds and word error rate.

`python evaluate.py ../tiny.nemo ../evaluation`
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jiwer
import numpy as np
import soundfile
import torch
from nemo.collections.asr.models import ASRModel

SAMPLE_RATE_HZ = 16_000


def samples(folder: Path, clips: str | list[str], gap_seconds: float) -> np.ndarray:
    """A row's waveform, float32 [n] at 16 kHz, its clips joined with silence between them."""
    names = [clips] if isinstance(clips, str) else clips
    gap = np.zeros(round(gap_seconds * SAMPLE_RATE_HZ), np.float32)
    pieces: list[np.ndarray] = []
    for name in names:
        pieces += [gap, soundfile.read(folder / name, dtype="float32")[0]]
    return np.concatenate(pieces[1:])


def evaluate(nemo_file: Path, corpus: Path) -> None:
    """Print one line a slice, in the form of the README's table."""
    model = ASRModel.restore_from(str(nemo_file), map_location="cpu")
    rows = [json.loads(line) for line in (corpus / "utterances.jsonl").read_text(encoding="utf-8").splitlines()]
    print("| slice | rows | words | minutes | WER % |\n|---|---|---|---|---|")
    for name in dict.fromkeys(row["slice"] for row in rows):
        part = [row for row in rows if row["slice"] == name]
        waves = [samples(corpus, row["audio_filepath"], row["gap_seconds"]) for row in part]
        said = [hypothesis.text for wave in waves for hypothesis in model.transcribe([wave], verbose=False)]
        rate = 100 * jiwer.wer([row["text"] for row in part], said)
        words = sum(len(row["text"].split()) for row in part)
        print(f"| {name} | {len(part)} | {words} | {sum(row['duration'] for row in part) / 60:.1f} | {rate:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nemo_file", type=Path)
    parser.add_argument("corpus", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    evaluate(arguments.nemo_file, arguments.corpus)
