"""Read a pickle of plain values, by our own interpreter of the few opcodes that `torch.save` writes (protocol 2).

For Python's reader, a file of some bytes can take any time and memory. A tuple may contain one tuple twice, that one
another twice, and so on: each level doubles the cost of the hash. A list of copies of a dictionary is as large as their
product. Here keys are plain, nothing is copied, and the cost of each opcode is linear in its bytes.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LENGTHS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEYS = (str, int, float, bool, type(None))


class PlainPickleError(ValueError):
    """The pickle is cut off, contradicts itself, or contains other values. The text says which, in one line."""


def read_plain(text: bytes, find: Callable[[str, str], Any], persistent: Callable[[Any], Any]) -> Any:
    """Return the value in the pickle. `find` resolves a name of a module, `persistent` an identifier.

    Functions that `find` returns are called where the file says so, with its arguments. Attributes of dictionaries are
    left out. Time and memory: linear in the text. Raises PlainPickleError, and the errors of `find`, `persistent` and
    the functions.
    """
    reader = _Reader(find, persistent, len(text))
    for name, argument in _opcodes(text):
        try:
            if name == "STOP":
                return reader.stack.pop()
            reader.take(name, argument)
        except LookupError:
            raise PlainPickleError("the pickle cannot be read: it uses a value that is missing") from None
    raise PlainPickleError("the pickle cannot be read: it has no end")


def _opcodes(text: bytes) -> Iterator[tuple[str, Any]]:
    try:
        for opcode, argument, _ in pickletools.genops(text):
            yield opcode.name, argument
    except ValueError as error:
        raise PlainPickleError(f"the pickle cannot be read: {error}"[:200]) from error


class _Reader:
    def __init__(self, find: Callable[[str, str], Any], persistent: Callable[[Any], Any], length: int) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._find, self._persistent = find, persistent
        self._length = self._attributes_left = length

    def take(self, name: str, argument: Any) -> None:
        """Execute one opcode."""
        stack = self.stack
        match name:
            case "PROTO":
                pass
            case "MARK":
                self._marks.append(len(stack))
            case "GLOBAL":
                stack.append(self._find(*argument.split(" ", 1)))
            case "BINPERSID":
                stack.append(self._persistent(stack.pop()))
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "BINPUT" | "LONG_BINPUT" if argument <= self._length:  # the memo is as long as its largest number
                self._memo[argument] = stack[-1]
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "APPEND" | "APPENDS":
                self._append([stack.pop()] if name == "APPEND" else self._since_mark())
            case "SETITEM" | "SETITEMS":
                self._set(self._last(2) if name == "SETITEM" else self._since_mark())
            case "NEWOBJ" | "REDUCE":
                self._call()
            case "BUILD":
                self._leave_out_attributes()
            case _ if name in _VALUES:
                stack.append(argument)
            case _ if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case _ if name in _LENGTHS:
                stack.append(tuple(self._last(_LENGTHS[name])))
            case _:
                raise PlainPickleError(f"the pickle has {name} {argument!r:.40}, which no state dict needs")

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError
        values = self.stack[-count:]
        del self.stack[-count:]
        return values

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        values = self.stack[mark:]
        del self.stack[mark:]
        return values

    def _append(self, values: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise PlainPickleError("the pickle cannot be read: it appends to what is not a list")
        self.stack[-1].extend(values)

    def _set(self, values: list[Any]) -> None:
        target, keys = self.stack[-1], values[::2]
        if not isinstance(target, dict) or len(values) % 2 or not all(type(key) in _KEYS for key in keys):
            raise PlainPickleError("the pickle cannot be read: a key is neither a text nor a number")
        target.update(zip(keys, values[1::2], strict=True))

    def _call(self) -> None:
        function, arguments = self._last(2)
        if not callable(function) or type(arguments) is not tuple:
            raise PlainPickleError("the pickle cannot be read: it calls what is not a function")
        self.stack.append(function(*arguments))

    def _leave_out_attributes(self) -> None:
        (state,) = self._last(1)
        if not isinstance(self.stack[-1], OrderedDict) or type(state) is not dict:
            raise PlainPickleError("the pickle cannot be read: it gives attributes to what is not a dictionary")
        self._attributes_left -= len(state)  # torch copies them each time
        if self._attributes_left < 0:
            raise PlainPickleError("the pickle cannot be read: it gives the same attributes too often")
