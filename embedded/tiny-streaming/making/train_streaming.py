"""Train the streaming model on synthesised speech: first its encoder, from the offline one, then all of it.

`PYTHONPATH=../../tiny/making python train_streaming.py WORK ../tiny-streaming.nemo`, where WORK holds what that
folder's `synthesise.py` made.
"""

from __future__ import annotations

import argparse
import random
from functools import partial
from pathlib import Path

import checkpoint
import numpy as np
import streaming_model
import torch
from distil import distil
from nemo.collections.asr.models import ASRModel
from recordings import Speech, record
from rnnt_loss import rnnt_loss
from tokenizer import write_tokenizer
from train import SEED, train, word_error_rate

OFFLINE = Path(__file__).resolve().parents[2] / "tiny" / "tiny.nemo"
PEAK_LEARNING_RATE = 6e-4

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("nemo_file", type=Path)
    parser.add_argument("--distil-steps", type=int, default=500)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--bfloat16", action="store_true", help="where the processor multiplies bfloat16 natively")
    parser.add_argument("--minutes", type=float, help="end after so long, the learning rate falling faster for it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(SEED)  # NeMo draws each batch's attention context from it
    write_tokenizer(arguments.work / "tokenizer")
    model = streaming_model.build(arguments.work / "tokenizer", SEED)
    offline = ASRModel.restore_from(str(OFFLINE), map_location="cpu")
    print(f"took {streaming_model.start_from(model, offline)} tensors from {OFFLINE.name}", flush=True)
    distil(model, offline, Speech(arguments.work, "train"), arguments.distil_steps)
    checkpoint.save(model, arguments.nemo_file)
    unseen = Speech(arguments.work, "validation")
    rng = np.random.default_rng(SEED)
    alone = [record(unseen, [index], 0.0, rng) for index in range(0, len(unseen), 4)]
    print(f"distilled: validation WER {word_error_rate(model, alone, torch.device('cpu')):.2f} %", flush=True)
    train(
        model,
        partial(rnnt_loss, blank=-1),
        arguments.work,
        arguments.nemo_file,
        arguments.steps,
        arguments.bfloat16,
        arguments.minutes,
        PEAK_LEARNING_RATE,
    )
