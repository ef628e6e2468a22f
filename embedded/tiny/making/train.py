"""Train the model on synthesised speech, on a GPU where there is one, else on one CPU thread.

`python train.py WORK CHECKPOINT.nemo --bfloat16`, where WORK holds what `synthesise.py` made.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import checkpoint
import jiwer
import numpy as np
import torch
from recordings import Recording, Speech, batches, record
from tdt_loss import tdt_loss
from tokenizer import write_tokenizer
from torch.nn.utils.rnn import pad_sequence

import model as tiny

if TYPE_CHECKING:
    from nemo.collections.asr.models import EncDecRNNTBPEModel

PEAK_LEARNING_RATE = 2e-3
LAST_LEARNING_RATE = 1e-5
WARM_UP_STEPS = 300
WEIGHT_DECAY = 1e-3
MAX_GRADIENT_NORM = 1.0
SIGMA = 0.02
STEPS_PER_REPORT = 50
STEPS_PER_CHECKPOINT = 500
SEED = 0

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits [B, T, U + 1, classes], targets [B, U], frames [B], tokens [B] → the loss of each row [B]."""


def learning_rate(step: float, steps: int, peak: float = PEAK_LEARNING_RATE) -> float:
    """Linear warm-up, then a half cosine down to almost nothing."""
    if step < WARM_UP_STEPS:
        return peak * (step + 1) / WARM_UP_STEPS
    progress = (step - WARM_UP_STEPS) / max(1, steps - WARM_UP_STEPS)
    return LAST_LEARNING_RATE + (peak - LAST_LEARNING_RATE) * (1 + math.cos(math.pi * progress)) / 2


def batch_loss(model: EncDecRNNTBPEModel, box_loss: Loss, batch: list[Recording], device: torch.device) -> torch.Tensor:
    """The loss per token over all sentences of a batch, each in its own box of frames and tokens."""
    encoded, encoded_lengths = encode(model, [recording.samples for recording in batch], device)
    rows = [[torch.tensor(model.tokenizer.text_to_ids(text)) for text in recording.texts] for recording in batch]
    targets = pad_sequence([torch.cat(row) for row in rows], batch_first=True).to(device)
    target_lengths = torch.tensor([sum(map(len, row)) for row in rows], device=device)
    predicted, _, _ = model.decoder(targets=targets, target_length=target_lengths)
    frames = model.joint.project_encoder(encoded.transpose(1, 2))
    states = model.joint.project_prednet(predicted.transpose(1, 2))
    frame_boxes, state_boxes, token_boxes = [], [], []
    for b, (recording, row) in enumerate(zip(batch, rows, strict=True)):
        start_frame = start_token = 0
        for tokens, stop_frame in zip(row, [*recording.stop_frames[:-1], int(encoded_lengths[b])], strict=True):
            stop_token = start_token + len(tokens)
            frame_boxes.append(frames[b, start_frame:stop_frame])
            state_boxes.append(states[b, start_token : stop_token + 1])
            token_boxes.append(tokens)
            start_frame, start_token = stop_frame, stop_token
    boxed_frames = pad_sequence(frame_boxes, batch_first=True)
    boxed_states = pad_sequence(state_boxes, batch_first=True)
    losses = box_loss(
        model.joint.joint_net(boxed_frames[:, :, None] + boxed_states[:, None]),
        pad_sequence(token_boxes, batch_first=True).to(device),
        torch.tensor([len(box) for box in frame_boxes]),
        torch.tensor([len(box) for box in token_boxes]),
    )
    possible = losses < 1e29
    return losses[possible].sum() / sum(len(box) for box in token_boxes)


def encode(
    model: EncDecRNNTBPEModel, waves: list[np.ndarray], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoder output [B, D, T] and lengths [B]; with SpecAugment while the model is in training mode."""
    signal = pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True).to(device)
    lengths = torch.tensor([len(wave) for wave in waves], device=device)
    features, feature_lengths = model.preprocessor(input_signal=signal, length=lengths)
    if model.training:
        features = model.spec_augmentation(input_spec=features, length=feature_lengths)
    encoded, encoded_lengths = model.encoder(audio_signal=features, length=feature_lengths)
    return encoded, encoded_lengths


@torch.no_grad()
def word_error_rate(model: EncDecRNNTBPEModel, recordings: list[Recording], device: torch.device) -> float:
    """WER in percent of greedy decoding, recording by recording."""
    model.eval()
    hypotheses = []
    for recording in recordings:
        encoded, lengths = encode(model, [recording.samples], device)
        decoded = model.decoding.rnnt_decoder_predictions_tensor(encoded, lengths, return_hypotheses=False)
        hypotheses.append(decoded[0].text)
    model.train()
    return 100 * jiwer.wer([" ".join(recording.texts) for recording in recordings], hypotheses)


def train(
    model: EncDecRNNTBPEModel,
    box_loss: Loss,
    work: Path,
    nemo_file: Path,
    steps: int,
    bfloat16: bool,
    minutes: float | None = None,
    peak: float = PEAK_LEARNING_RATE,
) -> None:
    """Train for `steps` batches and save; the last checkpoint is the model. With `minutes`, a slow machine ends after
    these instead: its steps count for more in the schedule of the learning rate."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).train()
    speech, unseen = Speech(work, "train"), Speech(work, "validation")
    rng = np.random.default_rng(SEED)
    alone = [record(unseen, [index], 1.0, rng) for index in range(len(unseen))]
    joined = [record(unseen, list(range(len(unseen)))[start::4], 1.0, rng) for start in range(4)]
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
    started = time.monotonic()
    recent: list[float] = []
    for step, batch in enumerate(batches(speech, steps, SEED)):
        spent = steps * (time.monotonic() - started) / (60 * minutes) if minutes else 0.0
        last = step + 1 == steps or spent >= steps
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(min(max(step, spent), steps), steps, peak)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            loss = batch_loss(model, box_loss, batch, device)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        recent.append(float(loss))
        if (step + 1) % STEPS_PER_REPORT == 0:
            print(f"step {step + 1}: loss {np.mean(recent):.4f}, {time.monotonic() - started:.0f} s", flush=True)
            recent.clear()
        if (step + 1) % STEPS_PER_CHECKPOINT == 0 or last:
            rates = [word_error_rate(model, recordings, device) for recordings in (alone, joined)]
            print(f"validation WER {rates[0]:.2f} % alone, {rates[1]:.2f} % joined", flush=True)
            checkpoint.save(model, nemo_file)
        if last:
            break


def tdt(logits: torch.Tensor, targets: torch.Tensor, frames: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The TDT loss with this model's durations."""
    return tdt_loss(logits, targets, frames, tokens, tiny.DURATIONS, SIGMA)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("nemo_file", type=Path)
    parser.add_argument("--steps", type=int, default=4800)
    parser.add_argument("--bfloat16", action="store_true", help="where the processor multiplies bfloat16 natively")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write_tokenizer(arguments.work / "tokenizer")
    untrained = tiny.build(arguments.work / "tokenizer", SEED)
    train(untrained, tdt, arguments.work, arguments.nemo_file, arguments.steps, arguments.bfloat16)
