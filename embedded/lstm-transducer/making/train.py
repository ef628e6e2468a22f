"""Train the LSTM transducer on synthesised speech, on the CPU, for as long as it is told.

`python train.py WORK FOLDER --minutes 60`, where WORK holds what `synthesise.py` of `embedded/tiny/making` made.
The learning rate follows the clock, so that it has come to its end when the time is over.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import beside  # noqa: F401  # finds the modules of embedded/tiny/making
import checkpoint
import jiwer
import numpy as np
import sentencepiece
import torch
from filterbank import features
from quick_lstm import quicken
from recordings import Recording, Shape, Speech, record
from rnnt_loss import rnnt_loss
from together import Adam, Meeting
from torch.nn.utils.rnn import pad_sequence
from vocabulary import write_vocabulary

from artifacts.icefall.checkpoint import load
from artifacts.icefall.lstm_transducer import Config, LstmTransducer

SHAPES = (Shape(0.88, 8, (1, 1)), Shape(0.09, 2, (3, 5)), Shape(0.03, 1, (8, 14)))
BUCKET_BATCHES, MOST_WORKERS = 16, 4
FRAMES_PER_STOP = 2  # a Recording counts in frames of 80 ms, the encoder in 40
PEAK_DB = ((-48.0, -32.0), (-48.0, -20.0))  # half as quiet as the corpora, half up to twice as loud, and more
TAIL_SECONDS = (0.1, 0.5)  # of digital silence: what consumers append, to get the last words out
HARD_BETWEEN = (0.45, 1.0)
HEADS_ALONE, HEAD_SHARE = 0.35, 0.3
GONE_ON_AT = 0.4  # where a training is that goes on from a checkpoint
LAG_FRAMES = 3  # a token is expected 120 ms after it is thought to begin
PEAK_LEARNING_RATE = 2.5e-3
LAST_LEARNING_RATE = 1e-5
WARM_UP = 0.03
BINS_MASKED, FRAMES_MASKED, MASKS = 8, 6, 2
SECONDS_PER_REPORT, SECONDS_PER_CHECKPOINT = 60, 420
SEED = 0


def configuration(vocab_size: int) -> Config:
    """1.5 million parameters."""
    return Config(
        num_encoder_layers=3, encoder_dim=128, rnn_hidden_size=256, dim_feedforward=256,
        decoder_dim=128, joiner_dim=128, vocab_size=vocab_size,
    )  # fmt: skip


class Model(LstmTransducer):
    """The transducer with two plain heads on its encoder, which training alone has."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.head = torch.nn.Linear(config.encoder_dim, config.vocab_size)
        self.head_flat = torch.nn.Linear(config.encoder_dim, config.vocab_size)


@torch.no_grad()
def initialise(model: Model, heard_rows: list[torch.Tensor]) -> None:
    """Begin with signals of about unit size everywhere, from features whose mean the first convolution takes off.

    Log-mel features lie around -10: without this, training says no word for its first thousand steps.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            gain = 1.7 if isinstance(module, torch.nn.Conv2d) else 1.0
            module.weight.normal_(0.0, gain / math.sqrt(module.weight[0].numel()))
            module.bias.zero_()  # type: ignore[union-attr]  # all have one
    std, mean = torch.std_mean(torch.cat(heard_rows))
    first = model.encoder.encoder_embed.conv[0]
    first.weight /= std
    first.bias -= mean * first.weight.sum((1, 2, 3))
    model.encoder.encoder_embed.out.weight *= 1.7
    for layer in model.encoder.encoder.layers:
        layer.feed_forward[-1].weight *= 0.25
        layer.lstm.weight_ih_l0 *= 1.7
        layer.lstm.weight_hr_l0 *= 3.0
        hidden = layer.lstm.hidden_size
        layer.lstm.bias_ih_l0[hidden : 2 * hidden] = 1.0


def batches(speech: Speech, rng: np.random.Generator, rank: int) -> Iterator[list[list[int]]]:
    """Sentences to be joined into recordings, batch by batch, without end; single ones with others of their length.

    Processes that draw from equal generators have batches of one kind and length at a time, each its own `rank` of it.
    """
    single = SHAPES[0].recordings
    bucketed: list[list[list[int]]] = []
    while True:
        shape = SHAPES[rng.choice(len(SHAPES), p=[shape.share for shape in SHAPES])]
        if shape.sentences != (1, 1):
            size = int(rng.integers(*shape.sentences, endpoint=True))
            yield rng.choice(len(speech), (MOST_WORKERS, shape.recordings, size), replace=False)[rank].tolist()
            continue
        if not bucketed:
            drawn = rng.choice(len(speech), MOST_WORKERS * single * BUCKET_BATCHES, replace=False).tolist()
            chosen = sorted(drawn, key=speech.seconds)
            size = MOST_WORKERS * single
            buckets = [chosen[start + rank : start + size : MOST_WORKERS] for start in range(0, len(chosen), size)]
            bucketed = [[[index] for index in buckets[i]] for i in rng.permutation(BUCKET_BATCHES)]
        yield bucketed.pop()


def heard(recording: Recording, rng: np.random.Generator) -> np.ndarray:
    """The recording as a device has it: at some level, rounded to 16 bits, with silence behind it."""
    samples = recording.samples
    peak_db = rng.uniform(*PEAK_DB[int(rng.random() < 0.5)])
    scale = 10 ** (peak_db / 20) / np.abs(samples).max()
    rounded = np.round(samples * np.float32(scale) * 32768) / np.float32(32768)
    return np.pad(rounded.clip(-1, 1), (0, int(rng.uniform(*TAIL_SECONDS) * 16_000))).astype(np.float32)


def masked(frames: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Features [T, 80] with some bins and some frames replaced by the mean (SpecAugment)."""
    frames, mean = frames.clone(), frames.mean()
    for _ in range(MASKS):
        width = int(rng.integers(0, BINS_MASKED, endpoint=True))
        start = int(rng.integers(0, frames.shape[1] - width))
        frames[:, start : start + width] = mean
    for _ in range(MASKS * max(1, len(frames) // 500)):
        width = int(rng.integers(0, FRAMES_MASKED, endpoint=True))
        start = int(rng.integers(0, len(frames) - width))
        frames[start : start + width] = mean
    return frames


def encode(model: LstmTransducer, rows: list[torch.Tensor]) -> tuple[torch.Tensor, list[int]]:
    """Encoder frames [B, T', D] of rows of features [T, 80], and how many each has."""
    out, _, _ = model.encoder(pad_sequence(rows, batch_first=True), *model.zero_states(len(rows)))
    return out, [((len(row) - 3) // 2 - 1) // 2 for row in rows]


def batch_loss(
    model: Model, batch: list[Recording], pieces: sentencepiece.SentencePieceProcessor, progress: float,
    rng: np.random.Generator,
) -> torch.Tensor:  # fmt: skip
    """The loss per token over all sentences of a batch, each in its own box of frames and tokens.

    One head has a CTC loss, and at first the other one that of a flat start: what `flat_labels` guesses. Both say words
    long before the transducer's loss would: alone at first, then CTC beside it.
    """
    unmasked = [features(heard(recording, rng)) for recording in batch]
    encoded, lengths = encode(model, [masked(each, rng) for each in unmasked])
    rows = [[torch.tensor(pieces.encode(text)) for text in recording.texts] for recording in batch]
    context = model.config.context_size
    said = pad_sequence([torch.cat([torch.zeros(context, dtype=torch.long), *row]) for row in rows], batch_first=True)
    frames = encoded
    states = model.joiner.decoder_proj(model.decoder(said))
    frame_boxes, state_boxes, token_boxes, label_boxes = [], [], [], []
    for b, (recording, row) in enumerate(zip(batch, rows, strict=True)):
        start_frame = start_token = 0
        stops = [*(FRAMES_PER_STOP * stop for stop in recording.stop_frames[:-1]), lengths[b]]
        for tokens, stop_frame in zip(row, stops, strict=True):
            stop_token = start_token + len(tokens)
            frame_boxes.append(frames[b, start_frame:stop_frame])
            state_boxes.append(states[b, start_token : stop_token + 1])
            token_boxes.append(tokens)
            loudness = unmasked[b].mean(1)[4::4][start_frame:stop_frame]
            label_boxes.append(flat_labels(loudness, tokens, [len(pieces.id_to_piece(i)) for i in tokens.tolist()]))
            start_frame, start_token = stop_frame, stop_token
    boxed_frames = pad_sequence(frame_boxes, batch_first=True)
    boxed_states = pad_sequence(state_boxes, batch_first=True)
    targets = pad_sequence(token_boxes, batch_first=True)
    sizes = [torch.tensor([len(box) for box in boxes]) for boxes in (frame_boxes, token_boxes)]
    scores = model.head(boxed_frames).log_softmax(-1).transpose(0, 1)
    head = torch.nn.functional.ctc_loss(scores, targets, *sizes, reduction="sum", zero_infinity=True)
    if progress < HEADS_ALONE:
        labels = pad_sequence(label_boxes, batch_first=True, padding_value=-100)
        flat = torch.nn.functional.cross_entropy(model.head_flat(boxed_frames).flatten(0, 1), labels.flatten())
        return head / sizes[1].sum() + 2 * flat
    joined = torch.tanh(model.joiner.encoder_proj(boxed_frames)[:, :, None] + boxed_states[:, None])
    losses = rnnt_loss(model.joiner.output_linear(joined), targets, *sizes, blank=0)
    return (losses.sum() + HEAD_SHARE * head) / sizes[1].sum()


def flat_labels(loudness: torch.Tensor, tokens: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """A guess of the token that is said at each frame, [T]: the tokens follow one another from the first loud frame to
    the last, each for as long as it has letters; blank before and after."""
    low, high = torch.quantile(loudness, torch.tensor([0.05, 0.95]))
    loud = torch.nonzero(loudness > low + 0.35 * (high - low))
    first, last = (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (0, len(loudness))
    ends = first + (last - first) * torch.tensor(lengths).cumsum(0) / sum(lengths)
    frames = torch.arange(len(loudness)) - LAG_FRAMES
    said = torch.searchsorted(ends, frames.float(), right=True)
    labels = tokens[said.clamp(max=len(tokens) - 1)]
    return torch.where((frames >= first) & (said < len(tokens)), labels, 0)


@torch.no_grad()
def transcribe(model: LstmTransducer, samples: np.ndarray, pieces: sentencepiece.SentencePieceProcessor) -> str:
    """Greedy decoding of a whole recording, at most one token a frame."""
    encoded, _ = encode(model, [features(np.pad(samples, (0, 8_000)))])
    context = model.config.context_size
    tokens = [0] * context
    state = model.joiner.decoder_proj(model.decoder(torch.tensor([tokens])))[0, 0]
    for frame in model.joiner.encoder_proj(encoded)[0]:
        token = int(model.joiner.output_linear(torch.tanh(frame + state)).argmax())
        if token not in (0, 2):
            tokens.append(token)
            state = model.joiner.decoder_proj(model.decoder(torch.tensor([tokens[-context:]])))[0, 0]
    return str(pieces.decode(tokens[context:]))


def word_error_rate(
    model: LstmTransducer, recordings: list[Recording], pieces: sentencepiece.SentencePieceProcessor
) -> float:
    """WER in percent."""
    said = [transcribe(model, recording.samples, pieces) for recording in recordings]
    return 100 * jiwer.wer([" ".join(recording.texts) for recording in recordings], said)


def train(work: Path, folder: Path, minutes: float, workers: int, start: Path | None) -> None:
    """Train for so many minutes, from the beginning or from a checkpoint, and save; the last one is the model."""
    write_vocabulary(folder)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "bpe.model"))
    torch.manual_seed(SEED)
    model = Model(configuration(pieces.get_piece_size()))
    unseen, rng = Speech(work, "validation"), np.random.default_rng(SEED)
    initialise(model, [features(heard(record(unseen, [index], 0.0, rng), rng)) for index in range(20)])
    if start:
        model.load_state_dict(load(start).state_dict(), strict=False)  # without the heads
    begun = GONE_ON_AT if start else 0.0
    meeting = Meeting(workers, sum(each.numel() for each in model.parameters()))
    others = [
        multiprocessing.get_context("fork").Process(
            target=work_along, args=(work, model, meeting, pieces, rank, minutes, begun), daemon=True
        )
        for rank in range(1, workers)
    ]
    for process in others:
        process.start()
    work_along(work, model, meeting, pieces, 0, minutes, begun, folder)
    checkpoint.save(model, folder)


def work_along(
    work: Path,
    model: Model,
    meeting: Meeting,
    pieces: sentencepiece.SentencePieceProcessor,
    rank: int,
    minutes: float,
    begun: float,
    folder: Path | None = None,
) -> None:
    """One process of the training; the one that is given a folder reports, validates and saves there."""
    for layer in model.encoder.encoder.layers:
        quicken(layer.lstm)
    adam = Adam(model, meeting, rank)
    speech, rng = Speech(work, "train"), np.random.default_rng((SEED, rank))
    started = reported = saved = time.monotonic()
    recent: list[float] = []
    for chosen in batches(speech, np.random.default_rng(SEED), rank):
        if folder:
            meeting.progress[0] = begun + (1 - begun) * (time.monotonic() - started) / (60 * minutes)
        meeting.barrier.wait()
        progress = float(meeting.progress)
        if progress >= 1:
            break
        hardness = float(np.interp(progress, HARD_BETWEEN, (0.0, 1.0)))
        batch = [record(speech, indices, hardness, rng) for indices in chosen]
        loss = batch_loss(model, batch, pieces, progress, rng)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step(learning_rate(progress))
        recent.append(float(loss))
        if folder and time.monotonic() - reported > SECONDS_PER_REPORT:
            print(f"step {adam.steps}: loss {np.mean(recent):.4f}, {100 * progress:.1f} % of the time", flush=True)
            reported, recent = time.monotonic(), []
        if folder and time.monotonic() - saved > SECONDS_PER_CHECKPOINT:
            validate(work, model, pieces)
            checkpoint.save(model, folder)
            saved = time.monotonic()
    if folder:
        validate(work, model, pieces)


def validate(work: Path, model: LstmTransducer, pieces: sentencepiece.SentencePieceProcessor) -> None:
    """Print the WER of sentences that are not trained on, alone and joined."""
    unseen, rng = Speech(work, "validation"), np.random.default_rng(SEED)
    alone = [quiet(record(unseen, [index], 1.0, rng)) for index in range(0, len(unseen), 2)]
    joined = [quiet(record(unseen, list(range(len(unseen)))[start::8], 1.0, rng)) for start in range(2)]
    rates = [word_error_rate(model, recordings, pieces) for recordings in (alone, joined)]
    print(f"validation WER {rates[0]:.2f} % alone, {rates[1]:.2f} % joined", flush=True)


def quiet(recording: Recording) -> Recording:
    """The recording with a peak at -40 dB, as the corpora have theirs."""
    return Recording(recording.samples * np.float32(0.01 / np.abs(recording.samples).max()),
                     recording.texts, recording.stop_frames)  # fmt: skip


def learning_rate(progress: float) -> float:
    """Linear warm-up, then a half cosine down to almost nothing."""
    if progress < WARM_UP:
        return PEAK_LEARNING_RATE * max(progress / WARM_UP, 1e-3)
    rest = (progress - WARM_UP) / (1 - WARM_UP)
    return LAST_LEARNING_RATE + (PEAK_LEARNING_RATE - LAST_LEARNING_RATE) * (1 + math.cos(math.pi * rest)) / 2


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one thread")
    parser.add_argument("--start", type=Path, help="a folder with a checkpoint to go on from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train(arguments.work, arguments.folder, arguments.minutes, arguments.workers, arguments.start)
