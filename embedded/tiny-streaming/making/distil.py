"""Teach the streaming encoder to give the frames that the offline encoder gives.

Trained from its fitted weights with the transducer's loss alone, the model settled on guessing the next word from those
before it, and listened to nothing. Frame by frame there is something to learn at each of them, and no lattice to pay
for: a step costs a third. What is learned is late by one frame, 80 ms: so even the last frame of a chunk, which sees
nothing beyond itself, has heard a little of what followed the frame that it is to repeat.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from recordings import Recording, Speech, record
from train import MAX_GRADIENT_NORM, SEED, STEPS_PER_REPORT, WEIGHT_DECAY, encode

if TYPE_CHECKING:
    from nemo.collections.asr.models import EncDecRNNTBPEModel

PEAK_LEARNING_RATE = 1.5e-3
WARM_UP_STEPS = 50
SENTENCES = 8
LATE_FRAMES = 1


def distil(model: EncDecRNNTBPEModel, offline: EncDecRNNTBPEModel, speech: Speech, steps: int) -> None:
    """Train the encoder for `steps` batches, each with another of its attention contexts."""
    offline.eval()
    model.train()
    parameters = list(model.encoder.parameters())
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
    started = time.monotonic()
    recent: list[float] = []
    for step, batch in enumerate(_batches(speech, steps)):
        progress = max(0.0, (step - WARM_UP_STEPS) / (steps - WARM_UP_STEPS))
        rate = PEAK_LEARNING_RATE * min((step + 1) / WARM_UP_STEPS, 1.02 - progress)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = frame_loss(model, offline, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % STEPS_PER_REPORT == 0:
            print(f"distilled {step + 1}: {np.mean(recent):.4f}, {time.monotonic() - started:.0f} s", flush=True)
            recent.clear()


def frame_loss(model: EncDecRNNTBPEModel, offline: EncDecRNNTBPEModel, batch: list[Recording]) -> torch.Tensor:
    """The squared distance between the two encoders' frames over the variance of the offline one's: 1 is no idea."""
    waves = [recording.samples for recording in batch]
    cpu = torch.device("cpu")
    with torch.no_grad():
        wanted, lengths = encode(offline, waves, cpu)
    features, feature_lengths = _features(model, waves)
    given, _ = model.encoder(audio_signal=features, length=feature_lengths)
    given = given[:, :, LATE_FRAMES : LATE_FRAMES + wanted.shape[2]]
    wanted = wanted[:, :, : given.shape[2]]
    valid = (torch.arange(given.shape[2]) < lengths[:, None])[:, None].to(given)
    distance = ((given - wanted) ** 2 * valid).sum()
    mean = (wanted * valid).sum((0, 2)) / valid.sum()
    return distance / (((wanted - mean[None, :, None]) ** 2) * valid).sum()


def _features(model: EncDecRNNTBPEModel, waves: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    signal = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
    features, lengths = model.preprocessor(input_signal=signal, length=torch.tensor([len(wave) for wave in waves]))
    return features, lengths


def _batches(speech: Speech, count: int) -> Iterator[list[Recording]]:
    """Recordings of one or two sentences, harder from batch to batch over the first half."""
    rng = np.random.default_rng(SEED)
    for step in range(count):
        each = int(rng.integers(1, 3))
        chosen = rng.choice(len(speech), (SENTENCES // each, each), replace=False)
        yield [record(speech, row.tolist(), min(1.0, 2 * step / count), rng) for row in chosen]
