"""The embedded streaming checkpoint: what the real pipeline makes of it, and how NeMo itself streams it."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nemo_models import nemo_around_the_kits_modules

ROOT = Path(__file__).parents[2]
RECIPE = "tiny-streaming"
CHECKPOINT = ROOT / "embedded" / RECIPE / f"{RECIPE}.nemo"


@functools.cache
def streaming(target: str) -> Path:
    """Build a target of the recipe, and what it needs; its folder."""
    command = [sys.executable, "-m", "doit", f"{RECIPE}:{target}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return ROOT / "cache" / RECIPE / target


def measurement_inputs(encoder: str) -> dict[str, Path]:
    """The inputs of a measurement but for the corpus, with one of the recipe's encoders."""
    targets = {
        "encoder": encoder,
        "predictor": "predictor_fp32",
        "joint": "joint_fp32",
        "preprocessor": "preprocessor",
        "tokens": "tokens",
        "model_meta": "model_meta",
    }
    return {name: streaming(target) for name, target in targets.items()}


@functools.cache
def restored_streaming_model(folder: Path) -> Any:
    """NeMo's model with the modules that the kit restores; `folder` is an empty one. Once a process."""
    return nemo_around_the_kits_modules(CHECKPOINT, folder)


class Step(NamedTuple):
    """What NeMo gave its encoder at one step of a stream, and what came back; all torch tensors, layers first."""

    window: Any
    length: Any
    output: Any
    output_length: Any
    caches: tuple[Any, Any, Any]


def stream_with_nemo(model: Any, rows: Sequence[Any]) -> list[Step]:
    """Stream features, one `[1, F, T]` for each row of the batch, with NeMo's own buffer and its own step.

    The encoder's streaming settings are those that the model has.
    """
    import torch
    from nemo.collections.asr.parts.utils.streaming_utils import CacheAwareStreamingAudioBuffer

    from artifacts.nemo.quiet import quiet

    with quiet(), torch.inference_mode():
        buffer = CacheAwareStreamingAudioBuffer(model=model)
        for features in rows:
            buffer.append_processed_signal(features, stream_id=-1)
        channel, time, length = model.encoder.get_initial_cache_state(batch_size=len(rows))
        steps = []
        for number, (window, lengths) in enumerate(iter(buffer)):
            output, output_length, channel, time, length = model.encoder.cache_aware_stream_step(
                processed_signal=window,
                processed_signal_length=lengths,
                cache_last_channel=channel,
                cache_last_time=time,
                cache_last_channel_len=length,
                keep_all_outputs=buffer.is_buffer_empty(),
                drop_extra_pre_encoded=0 if number == 0 else model.encoder.streaming_cfg.drop_extra_pre_encoded,
            )
            steps.append(Step(window, lengths, output, output_length, (channel, time, length)))
    return steps


def transcribe_with_nemo(model: Any, waveforms: Sequence[Any]) -> list[str]:
    """Stream recordings, float32 `[N]` at 16 kHz, one by one with NeMo's own buffer, step and decoding."""
    import torch
    from nemo.collections.asr.parts.utils.streaming_utils import CacheAwareStreamingAudioBuffer

    from artifacts.nemo.quiet import quiet

    texts = []
    with quiet(), torch.inference_mode():
        buffer = CacheAwareStreamingAudioBuffer(model=model)
        for waveform in waveforms:
            buffer.reset_buffer()
            buffer.append_audio(waveform)
            channel, time, length = model.encoder.get_initial_cache_state(batch_size=1)
            said, hypotheses = None, None
            for number, (window, lengths) in enumerate(iter(buffer)):
                said, found, channel, time, length, hypotheses = model.conformer_stream_step(
                    processed_signal=window,
                    processed_signal_length=lengths,
                    cache_last_channel=channel,
                    cache_last_time=time,
                    cache_last_channel_len=length,
                    keep_all_outputs=buffer.is_buffer_empty(),
                    previous_hypotheses=hypotheses,
                    previous_pred_out=said,
                    drop_extra_pre_encoded=0 if number == 0 else model.encoder.streaming_cfg.drop_extra_pre_encoded,
                    return_transcription=True,
                )
            texts.append(found[0].text)
    return texts
