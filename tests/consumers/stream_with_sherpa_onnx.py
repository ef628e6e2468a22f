"""Streams clips through sherpa-onnx: python stream_with_sherpa_onnx.py FOLDER TAIL_SECONDS < one clip's path a line.

A process of its own, because sherpa-onnx ends it where a file is not as it must be. Samples are given in pieces of
0.1 s as a microphone does; TAIL_SECONDS of silence follow. Prints one JSON string a clip: what was heard.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import sherpa_onnx
import soundfile

PIECE_SECONDS = 0.1


def main(folder: Path, tail_seconds: float) -> None:
    recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
        tokens=str(folder / "tokens.txt"),
        encoder=str(folder / "encoder.onnx"),
        decoder=str(folder / "decoder.onnx"),
        joiner=str(folder / "joiner.onnx"),
        num_threads=1,
        decoding_method="greedy_search",
    )
    for line in sys.stdin:
        samples, rate_hz = soundfile.read(line.strip(), dtype="float32")
        samples = np.concatenate([samples, np.zeros(int(tail_seconds * rate_hz), np.float32)])
        stream = recognizer.create_stream()
        size = int(PIECE_SECONDS * rate_hz)
        for start in range(0, len(samples), size):
            stream.accept_waveform(rate_hz, samples[start : start + size])
            while recognizer.is_ready(stream):
                recognizer.decode_stream(stream)
        stream.input_finished()
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
        print(json.dumps(recognizer.get_result(stream)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
