"""Stream a corpus with NeMo from the checkpoint, chunk by chunk, and print each slice's word error rate.

`python evaluate_streaming.py ../tiny-streaming.nemo ../../tiny/evaluation`; `--right 6` takes the other context,
`--slices clean soft_endings` some slices only. NeMo's own buffer cuts the streams, its own step encodes and decodes
them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import jiwer
import torch
from nemo.collections.asr.models import ASRModel
from nemo.collections.asr.parts.utils.streaming_utils import CacheAwareStreamingAudioBuffer

from artifacts.speech.corpus import read_corpus

if TYPE_CHECKING:
    import numpy as np
    from nemo.collections.asr.models import EncDecRNNTBPEModel


@torch.inference_mode()
def transcribe(model: EncDecRNNTBPEModel, buffer: CacheAwareStreamingAudioBuffer, wave: np.ndarray) -> str:
    """What is heard of one recording, float32 [n], from its first chunk to its last."""
    buffer.reset_buffer()
    buffer.append_audio(wave)
    channel, time, length = model.encoder.get_initial_cache_state(batch_size=1)
    said, heard = None, None
    for number, (window, lengths) in enumerate(iter(buffer)):
        said, found, channel, time, length, heard = model.conformer_stream_step(
            processed_signal=window,
            processed_signal_length=lengths,
            cache_last_channel=channel,
            cache_last_time=time,
            cache_last_channel_len=length,
            keep_all_outputs=buffer.is_buffer_empty(),
            previous_hypotheses=heard,
            previous_pred_out=said,
            drop_extra_pre_encoded=0 if number == 0 else model.encoder.streaming_cfg.drop_extra_pre_encoded,
            return_transcription=True,
        )
    return str(found[0].text)


def evaluate(nemo_file: Path, folder: Path, right: int | None, slices: list[str] | None) -> None:
    """Print one line a slice."""
    model = ASRModel.restore_from(str(nemo_file), map_location="cpu").eval()
    if right is not None:
        model.encoder.set_default_att_context_size([model.encoder.att_context_size[0], right])
    buffer = CacheAwareStreamingAudioBuffer(model=model)
    corpus = read_corpus(folder, slices)
    print("| slice | rows | words | WER % |\n|---|---|---|---|")
    for name in slices or dict.fromkeys(each.slice for each in corpus.utterances):
        part = [each for each in corpus.utterances if each.slice == name]
        said = [transcribe(model, buffer, corpus.waveform(each)) for each in part]
        rate = 100 * jiwer.wer([each.text for each in part], said)
        print(f"| {name} | {len(part)} | {sum(len(each.text.split()) for each in part)} | {rate:.2f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nemo_file", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--right", type=int)
    parser.add_argument("--slices", nargs="+")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    evaluate(arguments.nemo_file, arguments.corpus, arguments.right, arguments.slices)
