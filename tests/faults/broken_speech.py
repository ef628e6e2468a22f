"""Ways to break what belongs to speech: a corpus, its clips, tokens, and statistics of activations."""

from __future__ import annotations

import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faults.broken_files import JSON_TEXTS, VALUES, Damage, json_file, one, places, replace

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _line(**changes: Any) -> Damage:
    """The first line of the manifest with other values; the absent value takes a key away."""

    def damage(folder: Path, rng: random.Random) -> None:
        path = folder / "utterances.jsonl"
        first, *others = path.read_text().splitlines()
        value = {key: each for key, each in (json.loads(first) | changes).items() if each is not ...}
        path.write_text("\n".join([json.dumps(value), *others]) + "\n")

    return damage


def _random_value(folder: Path, rng: random.Random) -> None:
    _line(**{rng.choice(("id", "slice", "audio_filepath", "gap_seconds", "duration", "text")): rng.choice(VALUES)})(
        folder, rng
    )


def clip(data: Callable[[], bytes], name: str = "clips/x.wav") -> Damage:
    """A clip of these bytes, which the manifest says to be a second of speech."""

    def damage(folder: Path, rng: random.Random) -> None:
        (folder / name).write_bytes(data())
        _line(audio_filepath=name, duration=1.0)(folder, rng)

    return damage


def wav(
    samples: int = 16_000, *, rate: int = 16_000, channels: int = 1, bits: int = 16, kind: int = 1,
    data: bytes | None = None, claimed: int | None = None,
) -> bytes:  # fmt: skip
    """A RIFF file; `claimed` bytes of data, whatever there is."""
    data = bytes(samples * channels * bits // 8) if data is None else data
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, bits)
    size = len(data) if claimed is None else claimed
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", min(len(body), 2**32 - 1)) + body


def _sparse_wav(folder: Path, rng: random.Random) -> None:
    """2^31 samples of silence, in a file that takes no room on the disk."""
    path = folder / "clips" / "x.wav"
    path.write_bytes(wav(0, claimed=2**32 - 1))
    with path.open("r+b") as file:
        file.truncate(2**32 - 100)
    _line(audio_filepath="clips/x.wav", duration=2.0**31 / 16_000)(folder, rng)


CORPUS: dict[str, Damage] = {
    **{f"file_{name}": damage for name, damage in places("utterances.jsonl").items()},
    **{f"text_{name}": replace("utterances.jsonl", text) for name, text in JSON_TEXTS.items()},
    **{f"value_{number}": _random_value for number in range(12)},
    "clip_up": _line(audio_filepath="../../../../../../etc/passwd"),
    "clip_absolute": _line(audio_filepath="/etc/passwd"),
    "clip_device": _line(audio_filepath="/dev/zero"),
    "clip_nul": _line(audio_filepath="clips/a\0b"),
    "clip_surrogate": _line(audio_filepath="clips/\ud800.wav"),
    "clip_long": _line(audio_filepath="x" * 5000),
    "clip_of_dots": _line(audio_filepath="."),
    "clip_manifest": _line(audio_filepath="utterances.jsonl"),
    "clips_many": _line(audio_filepath=["clips/x.wav"] * 100_000),
    "id_missing": _line(id=...),
    "text_empty": _line(text=" "),
    "text_of_megabytes": _line(text="word " * 2_000_000),
    "gap_1e9": _line(gap_seconds=1e9, audio_filepath=["clips/x.wav", "clips/x.wav"]),
    "gap_1e300": _line(gap_seconds=1e300),
    "duration_1e300": _line(duration=1e300),
    "duration_1e9": _line(duration=1e9),
    **{
        f"clip_{name}": clip(data)
        for name, data in {
            "of_no_samples": lambda: wav(0),
            "of_8_bits": lambda: wav(bits=8),
            "stereo": lambda: wav(channels=2),
            "of_1_hz": lambda: wav(1, rate=1),
            "of_0_hz": lambda: wav(rate=0),
            "of_0_channels": lambda: wav(channels=0, data=bytes(32000)),
            "of_65535_channels": lambda: wav(channels=65535, data=bytes(32000)),
            "claiming_2e31": lambda: wav(claimed=2**32 - 1),
            "truncated": lambda: wav()[:30],
            "of_kind_999": lambda: wav(kind=999),
            "of_nan": lambda: wav(kind=3, bits=32, data=np.full(16_000, np.nan, "<f4").tobytes()),
            "of_1e38": lambda: wav(kind=3, bits=32, data=np.full(16_000, 1e38, "<f4").tobytes()),
            "of_text": lambda: b"not a wave file" * 100,
            "of_nothing": lambda: b"",
            "of_flac_head": lambda: b"fLaC" + bytes(64),
            "of_ogg_head": lambda: b"OggS" + bytes(64),
            "of_mp3_head": lambda: b"ID3\x03\x00\x00\x00\x00\x7f\x7f" + bytes(64),
        }.items()
    },
    "clip_raw": clip(lambda: bytes(32_000), "clips/x.raw"),
    "clip_sparse": _sparse_wav,
    **{f"audio_{name}": damage for name, damage in places("*.flac").items()},
}


def token_lines(pattern: str) -> dict[str, Damage]:
    """What may be wrong with a list of tokens."""

    def lines(change: Callable[[list[str]], list[str]]) -> Damage:
        def damage(folder: Path, rng: random.Random) -> None:
            path = one(folder, pattern)
            path.write_text("\n".join(change(path.read_text().split("\n"))), errors="surrogatepass")

        return damage

    def identifier(text: str) -> Damage:
        return lines(lambda found: [f"{found[0].split(' ')[0]} {text}", *found[1:]])

    return {
        **{f"file_{name}": damage for name, damage in places(pattern).items()},
        "not_utf8": replace(pattern, b"\xff\xfe 0\n<blk> 1\n"),
        "twice": lines(lambda found: [found[0], *found]),
        "missing": lines(lambda found: found[:3] + found[5:]),
        "no_blank": lines(lambda found: [line.replace("<blk>", "<x>") for line in found]),
        "no_line_end": lines(lambda found: found[:-1]),
        "carriage_returns": lines(lambda found: [line + "\r" for line in found]),
        "shuffled": lambda folder, rng: lines(lambda found: rng.sample(found, len(found)))(folder, rng),
        "long_line": lines(lambda found: ["x" * 10_000_000 + " 0", *found[1:]]),
        **{
            f"id_{name}": identifier(text)
            for name, text in {
                "negative": "-1", "huge": "1000000000000", "of_10000_digits": "9" * 10_000, "arabic": "\u0660",
                "superscript": "\u00b2", "none": "", "word": "x", "control": "\x1b[31m",
            }.items()
        },
    }  # fmt: skip


def arrays(change: Callable[[dict[str, NDArray[Any]], random.Random], None], *, compressed: bool = False) -> Damage:
    """The arrays of `statistics.npz` changed."""

    def damage(folder: Path, rng: random.Random) -> None:
        path = folder / "statistics.npz"
        with np.load(path) as found:
            values = {name: found[name] for name in found.files}
        change(values, rng)
        (np.savez_compressed if compressed else np.savez)(path, **values)

    return damage


def each_array(change: Callable[[NDArray[Any]], Any]) -> Damage:
    """Every array changed."""

    def all_of_them(values: dict[str, NDArray[Any]], rng: random.Random) -> None:
        values.update({name: np.asarray(change(value)) for name, value in values.items()})

    return arrays(all_of_them)


def member(content: bytes) -> Damage:
    """The files of a value's arrays replaced."""

    def damage(folder: Path, rng: random.Random) -> None:
        path = folder / "statistics.npz"
        names = zipfile.ZipFile(path).namelist()[:5]  # those of the first value
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name in names:
                file.writestr(name, content)

    return damage


def npy_head(shape: str, dtype: str = "<f4") -> bytes:
    """The head of an array's file that claims this shape."""
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (63 - (len(head) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


STATISTICS: dict[str, Damage] = {
    **{f"index_{name}": damage for name, damage in json_file("statistics.json").items()},
    **{f"file_{name}": damage for name, damage in places("*.npz").items()},
    "pickled": arrays(lambda values, rng: values.update(dict.fromkeys(values, np.array([{}], object)))),
    "bomb": member(npy_head("(750000000,)") + bytes(3_000_000)),
    "bomb_whole": member(npy_head("(50000000,)") + bytes(200_000_000)),
    "claims_1e12": member(npy_head("(1000000000000,)")),
    "claims_1e9": member(npy_head("(1000000000,)")),
    "claims_negative": member(npy_head("(-5,)")),
    "claims_code": member(npy_head("(__import__('os').getpid(),)")),
    "of_dtype_v": member(npy_head("(5,)", "|V1000000000")),
    "of_text": member(b"not an array"),
    "not_a_zip_but_npy": replace("*.npz", npy_head("(2,)") + bytes(8)),
    "keys_missing": arrays(lambda values, rng: [values.pop(name) for name in rng.sample(sorted(values), 3)]),  # type: ignore[arg-type,return-value]
    "float64": each_array(lambda value: value.astype(np.float64)),
    "integers": each_array(lambda value: value.astype(np.int8)),
    "strings": each_array(lambda value: value.astype(str)),
    "complex": each_array(lambda value: value.astype(np.complex64)),
    "one_longer": each_array(lambda value: np.append(value, value.dtype.type(1))),
    "empty": each_array(lambda value: value.reshape(-1)[:0]),
    "one_axis_more": each_array(lambda value: value[np.newaxis]),
    "nan": each_array(lambda value: np.full_like(value, np.nan)),
    "infinite": each_array(lambda value: np.full_like(value, np.inf)),
    "zero": each_array(np.zeros_like),
    "largest": each_array(lambda value: np.full_like(value, np.finfo(np.float32).max)),
    "rows_none": arrays(lambda values, rng: values.update({k: v[:0] for k, v in values.items() if k.endswith("rows")})),
    "compressed": arrays(lambda values, rng: None, compressed=True),
}
