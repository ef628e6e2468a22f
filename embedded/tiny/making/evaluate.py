"""Transcribe a corpus with NeMo from the checkpoint, and print each slice's words, seconds and word error rate.

`python evaluate.py ../tiny.nemo ../evaluation`
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jiwer
import torch
from nemo.collections.asr.models import ASRModel

from artifacts.speech.corpus import read_corpus


def evaluate(nemo_file: Path, folder: Path) -> None:
    """Print one line a slice, in the form of the README's table."""
    model = ASRModel.restore_from(str(nemo_file), map_location="cpu")
    corpus = read_corpus(folder)
    print("| slice | rows | words | minutes | WER % |\n|---|---|---|---|---|")
    for name in dict.fromkeys(each.slice for each in corpus.utterances):
        part = [each for each in corpus.utterances if each.slice == name]
        waves = [corpus.waveform(each) for each in part]
        said = [hypothesis.text for wave in waves for hypothesis in model.transcribe([wave], verbose=False)]
        rate = 100 * jiwer.wer([each.text for each in part], said)
        words = sum(len(each.text.split()) for each in part)
        print(f"| {name} | {len(part)} | {words} | {sum(each.duration for each in part) / 60:.1f} | {rate:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nemo_file", type=Path)
    parser.add_argument("corpus", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    evaluate(arguments.nemo_file, arguments.corpus)
