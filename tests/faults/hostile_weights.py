"""Files of weights that a stranger could send: damaged, contradictory, or with more than tensors in them."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults.hostile_checkpoints import WEIGHTS, Case, pack, unpack

Records = dict[str, bytes]
KEY = "joint.enc.weight"


def records(weights: bytes) -> Records:
    """The records of a file of torch's, by name."""
    with zipfile.ZipFile(io.BytesIO(weights)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def zipped(found: Records, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of the records, whose checksums are right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in found.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def saved(content: Any, **options: Any) -> bytes:
    """What torch.save writes."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def loaded(weights: bytes) -> dict[str, Any]:
    """The state dict."""
    import torch

    state: dict[str, Any] = torch.load(io.BytesIO(weights), weights_only=True)
    return state


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path, Path, Path], object]:
    def build(good: Path, file: Path, _: Path) -> None:
        members = unpack(good)
        pack({**members, WEIGHTS: change(members[WEIGHTS])}, file)

    return build


def _records(change: Callable[[Records, str], object]) -> Callable[[Path, Path, Path], object]:
    """A change of the records, which is told their folder."""

    def changed(weights: bytes) -> bytes:
        found = records(weights)
        change(found, next(iter(found)).partition("/")[0])
        return zipped(found)

    return _bytes(changed)


def _state(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Path, Path], object]:
    """A change of the state dict; what it returns is saved, if it returns anything."""

    def changed(weights: bytes) -> bytes:
        state = loaded(weights)
        return saved(change(state) or state)

    return _bytes(changed)


def _pickle(content: bytes) -> Callable[[Path, Path, Path], object]:
    return _records(lambda found, root: found.update({f"{root}/data.pkl": content}))


def _replaced(found: Records, root: str, old: bytes, new: bytes) -> None:
    text = found[f"{root}/data.pkl"]
    assert text.count(old) >= 1
    found[f"{root}/data.pkl"] = text.replace(old, new, 1)


def _flipped(weights: bytes) -> bytes:
    middle = len(weights) // 2
    return weights[:middle] + bytes([weights[middle] ^ 1]) + weights[middle + 1 :]


def _twice(weights: bytes) -> bytes:
    found = records(weights)
    name = next(name for name in found if name.endswith("data/0"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings(action="ignore"):
        for record, content in [*found.items(), (name, b"")]:
            archive.writestr(record, content)
    return buffer.getvalue()


def _expanded(state: dict[str, Any]) -> dict[str, Any]:
    import torch

    return {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({key.replace("__", "."): value for key, value in values.items()})


def _with(function: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({KEY: function(state[KEY])})


def _first(value: float) -> Callable[[Any], Any]:
    def change(tensor: Any) -> Any:
        tensor = tensor.clone()
        tensor[0, 0] = value
        return tensor

    return change


def _storage(content: bytes | None) -> Callable[[Path, Path, Path], object]:
    """Another content of one storage's record, None for no record."""

    def change(found: Records, root: str) -> None:
        found.pop(f"{root}/data/7")
        if content is not None:
            found[f"{root}/data/7"] = content

    return _records(change)


def _other_key(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.update({name: state[KEY]})


def files() -> Iterator[Case]:
    """Zips that are damaged or contradict themselves; all steps that read weights meet the fault."""
    view = _records(lambda found, root: _replaced(found, root, b"M\x90\x01\x85", b"M\x91\x01\x85"))
    no_pickle = _records(lambda found, root: found.pop(f"{root}/data.pkl"))
    other_folder = _records(lambda found, root: found.update({"other/data/x": b""}))
    compressed = _bytes(lambda content: zipped(records(content), zipfile.ZIP_DEFLATED))
    old = _bytes(lambda content: saved(loaded(content), _use_new_zipfile_serialization=False))
    for name, build, told in (
        ("an emptied storage", _storage(b""), "storage '7' needs 128 bytes and has 0"),
        ("a storage that is not there", _storage(None), "storage '7' needs 128 bytes and has no record"),
        ("a longer storage", _storage(b"0" * 10**6), "storage '7' needs 128 bytes and has 1000000"),
        ("a tensor beyond its storage", view, "a tensor of shape (401,) reaches beyond its storage of 400 values"),
        ("a record twice", _bytes(_twice), "record 'data/0' is there twice"),
        ("compressed", compressed, "record 'data.pkl' is compressed or encrypted"),
        ("another folder", other_folder, "records are in 2 folders"),
        ("no pickle", no_pickle, "no data.pkl"),
        ("a pickle of 5 MB", _pickle(b"N0" * 2_500_000), "no data.pkl of at most 4000000 bytes"),
        ("the old format", old, "not of the zip format"),
        ("bytes behind", _bytes(lambda content: content + b"x" * 100), "no zip directory at the end"),
        ("bytes before", _bytes(lambda content: content[:4] + content), "the zip directory is not at the end"),
        ("empty", _bytes(lambda _: b""), "not of the zip format"),
        ("cut", _bytes(lambda content: content[: len(content) // 2]), "no zip directory at the end"),
        ("text", _bytes(lambda _: b"<html>" * 100), "not of the zip format"),
    ):
        yield Case(f"weights: {name}", build, f"h.nemo: the weights cannot be read ({told}", "export_preprocessor")


def pickles() -> Iterator[Case]:
    """Pickles that run something, reserve memory, or are no state dict; all steps that read weights meet the fault."""
    call = b"\x80\x02cos\nsystem\nX\x07\0\0\0touch x\x85R."
    reserved = b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x01\x85R."
    reserved_by_code = b"\x80\x05\x96" + (10**12).to_bytes(8, "little") + b"."
    deep = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    numbered = _state(lambda state: dict(enumerate(state.values())))
    for name, build, told in (
        ("a function", _state(_set(x=print)), "contains a '__builtin__.print', which is not a tensor"),
        ("a call", _pickle(call), "contains a 'os.system', which is not a tensor"),
        ("bytearray of 1 TB", _pickle(reserved), "contains a 'builtins.bytearray'"),
        ("bytearray of 1 TB, by its code", _pickle(reserved_by_code), "the pickle cannot be read: expected 10000000"),
        ("a table of 2 billion", _pickle(b"\x80\x02}r\xff\xff\xff\x7f."), "the pickle has LONG_BINPUT 2147483647"),
        ("not a pickle", _pickle(b"\xff\xff"), "the pickle cannot be read"),
        ("a text that is called", _pickle(b"\x80\x02ctorch\nFloatStorage\n)R."), "the pickle cannot be read"),
        ("a list as key", _pickle(b"\x80\x02}]Ns."), "the pickle cannot be read"),
        ("deep lists", _pickle(deep), "the weights are not a state dict"),
        ("a list", _state(lambda state: list(state.values())), "the weights are not a state dict"),
        ("numbers as keys", numbered, "the weights contain 0, which is not a tensor with a name"),
        ("numbers as values", _state(_set(x=3)), "the weights contain 'x', which is not a tensor with a name"),
        ("dicts as values", _state(lambda state: {"state_dict": state}), "contain 'state_dict', which is not"),
        ("sparse", _state(_with(lambda value: value.to_sparse())), "_rebuild_sparse_tensor', which is not a tensor"),
        ("complex", _state(_with(lambda value: value + 0j)), "contains a 'torch.ComplexFloatStorage'"),
    ):  # fmt: skip
        yield Case(f"weights: {name}", build, told, "export_preprocessor")


def tensors() -> Iterator[Case]:
    """Tensors that are not the model's. A step reads its own part only: some faults are in the encoder."""
    asked = "the configuration asks for torch.float32 [96, 96]"
    for name, build, told in (
        ("a weight is missing", _state(lambda state: state.pop(KEY) is None), f"the weight '{KEY}' is missing"),
        ("no weights", _state(lambda _: {"a": _[KEY]}), "' is missing"),
        ("an unknown weight", _state(_other_key("x\n" * 500)), "the model has no weight 'x\\nx"),
        ("another shape", _state(_with(lambda value: value[1:])), f"'{KEY}' is torch.float32 [95, 96], {asked}"),
        ("integers", _state(_with(lambda value: value.long())), f"'{KEY}' is torch.int64 [96, 96], {asked}"),
        ("NaN", _state(_with(_first(float("nan")))), f"'{KEY}' has values that are not finite numbers"),
        ("infinite", _state(_with(_first(float("-inf")))), f"'{KEY}' has values that are not finite numbers"),
        ("too large for float32", _state(_with(lambda value: value.double() * 1e300)), "not finite numbers"),
    ):
        yield Case(f"weights: {name}", build, told, "export_joint")
    for name, build, told in (
        ("a flipped bit", _bytes(_flipped), "is damaged: the checksum differs"),
        ("views of one value", _state(_expanded), "bytes of values, the file has"),
    ):
        yield Case(f"weights: {name}", build, told, "export_encoder")


def weights() -> Iterator[Case]:
    """All of them."""
    yield from files()
    yield from pickles()
    yield from tensors()
