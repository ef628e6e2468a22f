"""Ways to break an ncnn network, its table of scales, and a traced module's `inputs.json`."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

from faults.broken_files import Damage, json_file, one, places, replace

NUMBERS = ("-1", "0", "1", "3", "1000000000", "1000000000000", "9" * 5000, "1e400", "nan", "x", "2147483648", "", "1.5")


def lines(change: Callable[[list[str], random.Random], list[str]]) -> Damage:
    """The lines of the `.param` file changed."""

    def damage(folder: Path, rng: random.Random) -> None:
        path = one(folder, "*.param")
        found = path.read_text().split("\n")
        path.write_bytes("\n".join(change(found, rng)).encode(errors="surrogateescape"))

    return damage


def _value(found: list[str], rng: random.Random) -> list[str]:
    """Another value of a parameter."""
    chosen = rng.choice([index for index, line in enumerate(found) if "=" in line])
    values = list(re.finditer(r"=(\S+)", found[chosen]))
    place = rng.choice(values)
    found[chosen] = f"{found[chosen][: place.start(1)]}{rng.choice(NUMBERS)}{found[chosen][place.end(1) :]}"
    return found


def _key(found: list[str], rng: random.Random) -> list[str]:
    chosen = rng.choice([index for index, line in enumerate(found) if "=" in line])
    found[chosen] = re.sub(
        r"(-?\d+)=", lambda _: f"{rng.choice((-23300, 31, 32, -1, 0, 6, 18, 10**30))}=", found[chosen], count=1
    )
    return found


def _word(found: list[str], rng: random.Random) -> list[str]:
    """Another type, name, count or blob."""
    chosen = rng.randrange(2, len(found) - 1)
    words = found[chosen].split()
    index = rng.randrange(min(len(words), 7))
    others = (
        "x",
        "\x1b[31m",
        "\udcff\udcfe",
        "n" * 1_000_000,
        "LSTM",
        "Convolution",
        "Reshape",
        "Input",
        "0",
        "99",
        *words,
    )
    words[index] = rng.choice(others)
    found[chosen] = " ".join(words)
    return found


def _line(found: list[str], rng: random.Random) -> list[str]:
    chosen = rng.randrange(len(found))
    what = rng.choice(("drop", "double", "swap"))
    if what == "drop":
        del found[chosen]
    elif what == "double":
        found.insert(chosen, found[chosen])
    else:
        other = rng.randrange(len(found))
        found[chosen], found[other] = found[other], found[chosen]
    return found


def counted(change: Callable[[list[str], random.Random], list[str]]) -> Damage:
    """A change after which the counts in the second line fit again."""

    def fitting(found: list[str], rng: random.Random) -> list[str]:
        found = change(found, rng)
        layers = [line.split() for line in found[2:] if line.strip()]
        blobs: set[str] = set()
        for words in layers:
            if len(words) > 3 and words[2].isdecimal() and words[3].isdecimal() and len(words[2] + words[3]) < 8:
                blobs.update(words[4 : 4 + int(words[2]) + int(words[3])])
        return [*found[:1], f"{len(layers)} {len(blobs)}", *found[2:]]

    return lines(fitting)


NETWORK: dict[str, Damage] = {
    **{f"param_{name}": damage for name, damage in places("*.param").items()},
    **{f"bin_{name}": damage for name, damage in places("*.bin").items()},
    **{f"value_{number}": lines(_value) for number in range(16)},
    **{f"key_{number}": lines(_key) for number in range(4)},
    **{f"word_{number}": lines(_word) for number in range(4)},
    **{f"word_counted_{number}": counted(_word) for number in range(10)},
    **{f"line_{number}": lines(_line) for number in range(2)},
    **{f"line_counted_{number}": counted(_line) for number in range(6)},
    "counts_long": lines(lambda found, rng: [found[0], "9" * 5000 + " 1", *found[2:]]),
    "counts_huge": lines(lambda found, rng: [found[0], "1000000000 1000000000", *found[2:]]),
    "inputs_huge": lines(lambda found, rng: [*found[:2], "Input x 0 1000000000 a", *found[2:]]),
    "array_huge": counted(lambda found, rng: [*found[:2], "Reshape rr 0 1 qq -23303=1000000000,1", *found[2:]]),
    "interface": lambda folder, rng: (one(folder, "*.json").write_bytes(b"[" * 100_000), None)[1],
}

TABLE: dict[str, Damage] = {
    **{f"file_{name}": damage for name, damage in places("joint.table").items()},
    **{
        f"text_{name}": replace("joint.table", text)
        for name, text in {
            "not_utf8": b"\xff\xfe 1.0\n", "nan": b"linear_1_param_0 nan\nlinear_1 nan\n", "control": b"\x1b[31m 1\n",
            "long": b"a_param_0 " + b"1.0 " * 3_000_000 + b"\n", "digits": b"a_param_0 " + b"9" * 100_000 + b"\n",
            "of_other_layers": b"nothing_param_0 1.0\nnothing 1.0\n",
        }.items()
    },
}  # fmt: skip

TRACE: dict[str, Damage] = {
    **{f"module_{name}": damage for name, damage in places("*.pt").items()},
    **{f"inputs_{name}": damage for name, damage in json_file("inputs.json").items()},
}
