"""Lay an LSTM transducer out in one flat folder as sherpa-ncnn reads it.

The names are those of sherpa-ncnn's documentation and of the models that it lists: `encoder_jit_trace-pnnx.ncnn.param`
and `.bin`, the same for `decoder` (our predictor) and `joiner` (our joint), and `tokens.txt`; int8 models stand beside
them as `.ncnn.int8.param` and `.ncnn.int8.bin`, the encoder's and the joiner's only. `SHA256SUMS` lists all of them.

sherpa-ncnn checks nothing of what it loads and ends the whole process on what does not fit, or hears something else. So
the folder is tried here, in another process: one clip has to come out token for token as our own streaming loop hears
it with the same files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("kaldi-native-fbank", "ncnn", "numpy", "sherpa-ncnn", "soundfile")

STEM = "{}_jit_trace-pnnx.ncnn"


class Params(StepParams):
    """None: the layout is sherpa-ncnn's."""


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
    """Write the networks under sherpa-ncnn's names, with `tokens.txt`, and hear a clip of `corpus` with them.

    Returns the numbers of files, bytes, and tokens heard. Raises StepError for an encoder that is not tagged, or tagged
    wrongly; for a network that is int8 where its name is not, or the other way round; for tokens that are not the
    predictor's; and if sherpa-ncnn does not survive, or hears another thing.
    """
    from artifacts.digest import digest_file
    from artifacts.files.copy import copy_file
    from artifacts.ncnn.lstm_transducer import token_count
    from artifacts.ncnn.param_file import read_param
    from artifacts.ncnn.precision import require_form
    from artifacts.ncnn.runtime import find_net
    from artifacts.ncnn.sherpa_metadata import read_metadata
    from artifacts.ncnn.sherpa_tokens import NAME, find_tokens, read_tokens

    networks: dict[tuple[str, str], Path | None] = {
        ("encoder", ""): encoder,
        ("decoder", ""): predictor,
        ("joiner", ""): joint,
        ("encoder", ".int8"): encoder_int8,
        ("joiner", ".int8"): joint_int8,
    }
    for folder in filter(None, (encoder, encoder_int8)):
        param, _ = find_net(folder)
        read_metadata(read_param(param), param.name)
    read_tokens(find_tokens(tokens), token_count(predictor))

    copy_file(find_tokens(tokens), out / NAME)
    for (name, suffix), network in networks.items():
        if network is not None:
            require_form(network, int8=suffix == ".int8")
            for source, end in zip(find_net(network), (".param", ".bin"), strict=True):
                copy_file(source, out / f"{STEM}{suffix}{end}".format(name))
    heard = {"tokens_heard": _hear(out, networks, "", corpus)}
    if encoder_int8 or joint_int8:
        heard["tokens_heard_int8"] = _hear(out, networks, ".int8", corpus)

    files = sorted(path for path in out.iterdir())
    sums = "".join(f"{digest_file(path)}  {path.name}\n" for path in files)
    (out / "SHA256SUMS").write_text(sums, encoding="ascii")
    return {
        "files": len(files) + 1,
        "bytes": sum(path.stat().st_size for path in out.iterdir()),
        **heard,
    }


def _hear(out: Path, networks: Mapping[tuple[str, str], Path | None], suffix: str, corpus: Path) -> int:
    """How many tokens both hear in the first clip. Raises StepError if they differ, or if there are none."""
    import numpy as np

    from artifacts.ncnn.lstm_transducer import LstmTransducer
    from artifacts.ncnn.sherpa_recognizer import SherpaFiles, SherpaRecognizer
    from artifacts.ncnn.sherpa_tokens import NAME
    from artifacts.speech.corpus import SAMPLE_RATE_HZ, read_corpus
    from artifacts.speech.streaming_rnnt import TAIL_SECONDS, transcribe

    chosen = {name: suffix if networks.get((name, suffix)) else "" for name in ("encoder", "decoder", "joiner")}
    stems = [STEM.format(name) + own for name, own in chosen.items()]
    files = SherpaFiles(out / NAME, *(out / f"{stem}{end}" for stem in stems for end in (".param", ".bin")))
    encoder, predictor, joint = (networks[each] for each in chosen.items())
    assert encoder  # what is not there in int8 was chosen without
    assert predictor
    assert joint
    speech = read_corpus(corpus)
    utterance = speech.utterances[0]
    waveform = np.pad(speech.waveform(utterance), (0, round(TAIL_SECONDS * SAMPLE_RATE_HZ)))
    networks_here = LstmTransducer(encoder, predictor, joint, as_sherpa=True)
    ours = transcribe(networks_here, waveform, tail_seconds=0)
    with SherpaRecognizer(files) as recognizer:
        theirs = recognizer.tokens(waveform)
    if ours != theirs or not ours:
        raise StepError(
            f"{stems[0]}: in '{utterance.id}' sherpa-ncnn hears {len(theirs)} tokens and our own streaming loop "
            f"{len(ours)}; both have to hear the same, and something",
            "give three networks of one checkpoint, and a corpus whose first clip is speech",
        )
    return len(ours)
