"""Archives, configurations as text, and tokenizers that a stranger could send as a .nemo file."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults.hostile_checkpoints import CONFIG, TOKENIZER, Case, Members, pack, unpack

BLOCK = 512


def _tar(members: Members, extra: list[tarfile.TarInfo], content: bytes = b"", **options: Any) -> bytes:
    """A tar of members, and of headers with this content behind each."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for member in extra:
            member.size = member.size or len(content)
            tar.addfile(member, io.BytesIO(content) if member.isreg() and content else None)
        for name, held in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(held)
            tar.addfile(info, io.BytesIO(held))
    return buffer.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in fields.items():
        setattr(member, key, value)
    return member


def _header(name: bytes, size: bytes, kind: bytes) -> bytes:
    """One header of 512 bytes, with a size field of any 12 bytes."""
    head = bytearray(BLOCK)
    head[0 : len(name)] = name
    head[100:108], head[124:136], head[148:156], head[156:157] = b"0000644\0", size, b" " * 8, kind
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def _with(extra: tarfile.TarInfo, content: bytes = b"") -> Callable[[Path, Path, Path], object]:
    return lambda good, file, _: file.write_bytes(_tar(unpack(good), [extra], content))


def _before(head: bytes) -> Callable[[Path, Path, Path], object]:
    """Write headers before those of the good archive."""
    return lambda good, file, _: file.write_bytes(head + _tar(unpack(good), []))


def _sparse(good: Path, file: Path, _: Path) -> None:
    head = bytearray(_header(CONFIG.encode(), b"00000000000\0", b"S"))
    head[386:410] = b"00000000000\0" + b"00000000000\0"
    head[483:495] = b"\x80" + (10**12).to_bytes(11, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    file.write_bytes(bytes(head) + bytes(2 * BLOCK))


def _pax(text: bytes, repeated: int = 1) -> bytes:
    padded = text.ljust(-(-len(text) // BLOCK) * BLOCK, b"\0")
    return (_header(b"PaxHeader", b"%011o\0" % len(text), b"x") + padded) * repeated


def _records(**values: str) -> bytes:
    lines = b""
    for key, value in values.items():
        rest = f" {key.replace('__', '.')}={value}\n".encode()
        size = len(rest) + 1
        while len(str(size)) + len(rest) != size:
            size += 1
        lines += str(size).encode() + rest
    return lines


def archives() -> Iterator[Case]:
    """Members that are not files, names that lead elsewhere, and headers that claim or hold too much."""
    links = "is a link, a device or a sparse file"
    names = "is in a folder, or its name is not a plain one"
    many = "has too many members, or too long a header"
    damaged = "ends early or is damaged"
    yield Case("sparse 1 TB", _sparse, links)
    yield Case("pax sparse", _before(_pax(_records(GNU__sparse__major="1", GNU__sparse__minor="0",
               GNU__sparse__name="a", GNU__sparse__realsize="9" * 12)) + _header(b"a", b"%011o\0" % BLOCK, b"0")
               + b"0\n".ljust(BLOCK, b"\0")), links)  # fmt: skip
    yield Case("pax sparse map", _before(_pax(_records(GNU__sparse__map="x", GNU__sparse__size="1"))), damaged)
    yield Case("symbolic link", _with(_member("a", tarfile.SYMTYPE, linkname="/etc/passwd")), links)
    yield Case("hard link", _with(_member("a", tarfile.LNKTYPE, linkname=CONFIG)), links)
    yield Case("device", _with(_member("a", tarfile.CHRTYPE, devmajor=1, devminor=3)), links)
    yield Case("pipe", _with(_member("a", tarfile.FIFOTYPE)), links)
    yield Case("unknown type", _with(_member("a", b"Z")), links)
    for name in ("../a", "/etc/a", "sub/vocab.txt", "./sub/a", "a\nb", "a\x1b[31m", "..", "\udcff", "."):
        yield Case(f"name {name!r}", _with(_member(name), b"x"), names)
    for name in (CONFIG, f"./{CONFIG}", f".//{CONFIG}", f"././{CONFIG}"):
        yield Case(f"twice {name!r}", _with(_member(name), b"x"), "is there twice")
    yield Case("100,000 members", _before(b"".join(_header(b"%d" % n, b"0" * 12, b"0") for n in range(100_000))), many)
    yield Case("1 TB member", _before(_header(b"a", b"\x80" + (10**12).to_bytes(11, "big"), b"0")), damaged)
    yield Case("size below zero", _before(_header(b"a", b"\xff" * 11 + b"\x00", b"0")), links)
    yield Case(
        "size below zero, pax", _before(_pax(_records(size="-1024")) + _header(b"a", b"00000000000\0", b"0")), links
    )
    yield Case("size of 400 digits", _before(_pax(_records(size="9" * 400)) + _header(b"a", b"0" * 12, b"0")), damaged)
    yield Case("long pax header", _before(_pax(_records(comment="x" * 10_000))), many)
    yield Case("pax header of 8 GB", _before(_header(b"x", b"7" * 11 + b"\0", b"x")), many)
    yield Case("long name of 8 GB", _before(_header(b"x", b"7" * 11 + b"\0", b"L")), many)
    yield Case("pax header upon pax header", _before(_pax(_records(comment="x"), 400)), damaged)
    yield Case("endless pax digits", _before(_pax(b"1" * 500, 600)), damaged)
    yield Case(
        "long name upon long name",
        _before((_header(b"x", b"%011o\0" % 2, b"L") + b"ab".ljust(BLOCK, b"\0")) * 400),
        damaged,
    )
    for level in (1, 9):
        yield Case(f"gzip bomb {level}", lambda good, file, _, level=level: file.write_bytes(
            gzip.compress(_tar({"a": bytes(40_000_000)}, []), level)), "out of proportion to its size")  # fmt: skip
    yield Case("cut", lambda good, file, _: file.write_bytes(good.read_bytes()[:100_000]), damaged)
    yield Case("bzip2", lambda good, file, _: file.write_bytes(_compressed(good, "bz2")), "it is not a tar archive")
    yield Case("empty", lambda good, file, _: file.write_bytes(b""), "it is not a tar archive")


def _compressed(good: Path, kind: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as tar:  # type: ignore[call-overload]
        tar.addfile(tarfile.TarInfo(good.name))
    return buffer.getvalue()


def _text(content: bytes) -> Callable[[Path, Path, Path], object]:
    return lambda good, file, _: pack({**unpack(good), CONFIG: content}, file)


def config_texts() -> Iterator[Case]:
    """Texts that a YAML parser takes long for, or that fill the memory."""
    bomb = b"a0: &a0 [x, x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 20)
    )
    for name, content, told in (
        ("aliases", bomb, "line 1, column 5: anchor 'a0'"),
        ("anchor alone", b"target: &a x", "anchor 'a'"),
        ("100,000 lists", b"[" * 100_000, "nested more than 20 deep"),
        ("100,000 mappings", b"{a: " * 100_000, "nested more than 20 deep"),
        ("2 MB", b"#" * 2_000_000, "has 2000000 bytes, at most 1000000 are read"),
        ("python tag", b"a: !!python/object/apply:os.system [id]", "is not YAML: could not determine a constructor"),
        ("binary tag", b"a: !!binary aa", "is not YAML: could not determine a constructor"),
        ("key twice", b"target: a\ntarget: b", "a key is given twice"),
        ("long number", b"a: " + b"1" * 900_000, "is not of type int"),
        ("number of base 60", b"a: " + b":".join([b"1"] * 400_000), "is not of type int"),
        ("list as key", b"? [a]\n: 1", "is not YAML: "),
        ("not UTF-8", b"a: \xff", "is not YAML: "),
        ("control character", b"a: \x07", "is not YAML: "),
        ("two documents", b"--- a\n--- b", "is not YAML: "),
        ("text", b"target", "contains 'no class'"),
    ):
        yield Case(f"configuration: {name}", _text(content), told)


def _proto(*pieces: bytes) -> bytes:
    """A SentencePiece model of these pieces; the first is for unknown text."""
    entries = b""
    for number, piece in enumerate(pieces):
        entry = b"\x0a" + bytes([len(piece)]) + piece + b"\x15\0\0\0\0" + (b"\x18\x02" if number == 0 else b"")
        entries += b"\x0a" + bytes([len(entry)]) + entry
    return entries


def tokenizers() -> Iterator[Case]:
    """Tokenizers that are broken, or whose pieces are not lines of text."""
    rest = [b"p%d" % number for number in range(126)]
    for name, content, told in (
        ("empty", b"", "is not a SentencePiece model" ),
        ("random", bytes(range(256)) * 4, "is not a SentencePiece model"),
        ("few pieces", _proto(b"<unk>", b"a"), "the tokenizer has 2 pieces, decoder.vocab_size is 128"),
        ("not UTF-8", _proto(b"<unk>", *rest, b"\xff\xfe"), "piece 127 is not UTF-8: b'\\xff\\xfe'"),
        ("line end", _proto(b"<unk>", *rest, b"a\nb"), "piece 127 is 'a\\nb', with a control character"),
        ("line separator", _proto(b"<unk>", *rest, "a\u2028b".encode()), "piece 127 is 'a\\u2028b', with a control"),
        ("escape", _proto(b"<unk>", *rest, b"\x1b[31m"), "piece 127 is '\\x1b[31m', with a control character"),
        ("the same twice", _proto(b"<unk>", *rest, b"p1"), "is not a SentencePiece model"),
    ):  # fmt: skip
        build = lambda good, file, _, content=content: pack({**unpack(good), TOKENIZER: content}, file)  # noqa: E731
        yield Case(f"tokenizer: {name}", build, told, "write_tokens")
