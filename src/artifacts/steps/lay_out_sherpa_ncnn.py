"""Lay out an LSTM transducer in one flat folder as sherpa-ncnn reads it.

The names are those of sherpa-ncnn's documentation and of the models that it lists: `encoder_jit_trace-pnnx.ncnn.param`
and `.bin`, the same for `decoder` (the predictor) and `joiner` (the joint), and `tokens.txt`. int8 networks, of the
encoder and the joiner only, are called `.ncnn.int8.param` and `.ncnn.int8.bin`. `SHA256SUMS` lists all files.

sherpa-ncnn does not check the files that it loads: on a mismatch it aborts its process or transcribes other words. So
this step runs it on the folder, in a child process. It must transcribe one clip token for token as the project's own
streaming loop does with the same files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("kaldi-native-fbank", "ncnn", "numpy", "sherpa-ncnn", "soundfile")
HEADLINE = ("files", "bytes", "tokens")

STEM = "{}_jit_trace-pnnx.ncnn"


class Params(StepParams):
    """No params: the layout is sherpa-ncnn's."""


def run(
    out: Path,
    params: Params,
    *,
    encoder: Path,
    predictor: Path,
    joint: Path,
    tokens: Path,
    corpus: Path,
    encoder_int8: Path | None = None,
    joint_int8: Path | None = None,
) -> dict[str, float | int | str]:
    """Write the networks under sherpa-ncnn's names, with `tokens.txt`, and transcribe a clip of `corpus` with them.

    Metrics: files, bytes, and the tokens of the clip. Raises StepError for an encoder without metadata or with wrong
    ones, and for a network that is not of the precision that its input is named for. Raises it for tokens of another
    predictor, and if sherpa-ncnn crashes or decodes other tokens.
    """
    from artifacts.files.checksums import write_checksums
    from artifacts.files.copy import copy_file
    from artifacts.ncnn.layout import copy_net
    from artifacts.ncnn.lstm_transducer import vocabulary_size
    from artifacts.ncnn.param_file import find_net, read_param
    from artifacts.ncnn.sherpa_metadata import read_metadata
    from artifacts.ncnn.sherpa_ncnn import TOKENS_NAME, find_tokens, read_tokens

    plain = {"encoder": encoder, "decoder": predictor, "joiner": joint}
    int8 = {name: folder for name, folder in (("encoder", encoder_int8), ("joiner", joint_int8)) if folder}
    for folder in filter(None, (encoder, encoder_int8)):
        param, _ = find_net(folder)
        read_metadata(read_param(param), param.name)
    read_tokens(find_tokens(tokens), vocabulary_size(predictor))

    copy_file(find_tokens(tokens), out / TOKENS_NAME)
    for is_int8, folders in ((False, plain), (True, int8)):
        for name, folder in folders.items():
            copy_net(folder, out, STEM.format(name), int8=is_int8)
    counts = {"tokens": _transcribe_clip(out, plain, {}, corpus)}
    if int8:
        counts["tokens_int8"] = _transcribe_clip(out, plain, int8, corpus)
    return {**write_checksums(out), **counts}


def _transcribe_clip(out: Path, plain: Mapping[str, Path], int8: Mapping[str, Path], corpus: Path) -> int:
    """Transcribe the first clip with sherpa-ncnn from `out` and with our own loop; return the number of tokens.

    Networks of `int8` replace those of `plain`. Raises StepError if the tokens differ, or if there are none.
    """
    import numpy as np

    from artifacts.ncnn.lstm_transducer import NcnnLstmTransducer
    from artifacts.ncnn.sherpa_ncnn import TOKENS_NAME, SherpaFiles, SherpaRecognizer
    from artifacts.speech.corpus import SAMPLE_RATE_HZ, read_corpus
    from artifacts.speech.sherpa_streaming import TAIL_SECONDS, transcribe

    stems = [f"{STEM.format(name)}{'.int8' if name in int8 else ''}" for name in plain]
    files = SherpaFiles(out / TOKENS_NAME, *(out / f"{stem}{end}" for stem in stems for end in (".param", ".bin")))
    speech = read_corpus(corpus)
    utterance = speech.utterances[0]
    waveform = np.pad(speech.waveform(utterance), (0, round(TAIL_SECONDS * SAMPLE_RATE_HZ)))
    encoder, predictor, joint = (int8.get(name, folder) for name, folder in plain.items())
    networks = NcnnLstmTransducer(encoder, predictor, joint, as_sherpa=True)
    ours = transcribe(networks, waveform, tail_seconds=0)
    with SherpaRecognizer(files) as recognizer:
        theirs = recognizer.tokens(waveform)
    if ours != theirs or not ours:
        raise StepError(
            f"{stems[0]}: sherpa-ncnn decodes {len(theirs)} tokens of '{utterance.id}', our own streaming loop "
            f"{len(ours)}; both must decode the same tokens, and at least one",
            "give three networks of one checkpoint, and a corpus whose first clip is speech",
        )
    return len(ours)
