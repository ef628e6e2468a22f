from __future__ import annotations

import pickle
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

from artifacts.untrusted.plain_pickle import PlainPickleError, read_plain

START = b"\x80\x02"
ORDERED = b"ccollections\nOrderedDict\n"


def _ordered() -> OrderedDict[Any, Any]:
    return OrderedDict()


def read(text: bytes) -> Any:
    return read_plain(text, lambda _module, _name: _ordered, lambda pid: ("persistent", pid))


def doubled(times: int) -> bytes:
    """A tuple that contains one tuple twice, and so on: its hash and its text double with each."""
    steps = (b"h%c" % number * 2 + b"\x86q%c" % (number + 1) for number in range(times))
    return b"(Nq\0" + b"".join(steps) + b"t"


@pytest.mark.parametrize(
    "content",
    [
        {"a": 1, 2: -3, 1.5: 70000, None: True, "ä": 2**60}, [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        {"x": [{"y": ["z"]}], "w": list(range(3000))}, ["same", "same"], {}, OrderedDict(a=OrderedDict()),
    ],
)  # fmt: skip
def test_plain_values_are_read_as_python_reads_them(content: object) -> None:
    assert read(pickle.dumps(content, protocol=2)) == content


HOSTILE: dict[str, Callable[[], bytes]] = {
    "a key that doubles": lambda: START + b"}" + doubled(60) + b"Ns.",
    "a deep key": lambda: START + b"})" + b"\x85" * 300_000 + b"Ns.",
    "copies": lambda: START + ORDERED + b"q\0)Rq\1(" + b"K\1N" * 1000 + b"u(" + b"h\0h\1\x85R" * 10_000 + b"t.",
    "attributes again and again": lambda: (
        START + ORDERED + b")Rq\1}q\2(" + b"".join(b"J%bN" % n.to_bytes(4, "little") for n in range(20_000))
        + b"u" + b"h\1h\2b" * 100_000 + b"."
    ),
    "attributes of a text": lambda: START + b"X\1\0\0\0a}b.",
    "no end": lambda: START + b"}",
    "nothing there": lambda: START + b"s.",
    "no mark": lambda: START + b"t.",
    "not stored": lambda: START + b"h\5.",
    "a large table": lambda: START + b"}r\xff\xff\xff\x7f.",
    "cut off": lambda: START + b"X\xff\0\0\0a",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_plain_is_refused_in_the_time_that_its_bytes_take(name: str) -> None:
    text, started = HOSTILE[name](), time.process_time()
    with pytest.raises((PlainPickleError, TypeError)) as told:
        read(text)
    assert time.process_time() - started < 10
    assert len(str(told.value).splitlines()) == 1
