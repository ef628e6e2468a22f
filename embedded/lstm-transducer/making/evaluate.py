"""Transcribe a corpus as a stream, with torch, and print each slice's word error rate.

`python evaluate.py ../checkpoint ../../tiny/evaluation`, or with names of slices behind for only these.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import beside  # noqa: F401  # finds the modules of tests/support
import torch

from artifacts.icefall.checkpoint import load
from artifacts.speech.corpus import read_corpus
from artifacts.speech.sherpa_streaming import transcribe
from artifacts.speech.word_error_rate import count_errors, sum_errors
from torch_networks import TorchNetworks


def evaluate(checkpoint: Path, folder: Path, slices: list[str]) -> None:
    """Print one line a slice, in the form of the README's table."""
    networks = TorchNetworks(load(checkpoint))
    pieces = [line.split()[0] for line in (checkpoint / "tokens.txt").read_text(encoding="utf-8").splitlines()]
    corpus = read_corpus(folder, slices or None)
    print("| slice | rows | words | WER % | deletions % |\n|---|---|---|---|---|")
    for name in dict.fromkeys(each.slice for each in corpus.utterances):
        errors = []
        for utterance in (each for each in corpus.utterances if each.slice == name):
            said = "".join(pieces[token] for token in transcribe(networks, corpus.waveform(utterance)))
            hypothesis = said.replace("\u2581", " ").strip()
            errors.append(count_errors(utterance.text, hypothesis, ignore_case_and_punctuation=False))
        sum_ = sum_errors(errors)
        print(
            f"| {name} | {sum_.utterances} | {sum_.words} | {sum_.wer_percent:.2f} | {sum_.deletions_percent:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("slices", nargs="*")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    evaluate(arguments.checkpoint, arguments.corpus, arguments.slices)
