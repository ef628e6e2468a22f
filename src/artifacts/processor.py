"""The processor at hand, by name and by the instructions that decide the last bits of a measurement."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_INSTRUCTIONS = (
    ("amx_int8", "AMX"), ("avx512f", "AVX-512"), ("avx2", "AVX2"), ("avx512_vnni", "VNNI"), ("avx_vnni", "VNNI"),
    ("sve", "SVE"), ("i8mm", "I8MM"), ("asimddp", "DOTPROD"),
)  # fmt: skip
"""What Linux calls an instruction set, and what its maker does: those that runtimes choose their kernels by."""


@cache
def processor() -> str:
    """Return the name of this machine's processor and its vector instructions, as in `AMD EPYC 7763 (AVX2)`."""
    return describe(Path("/proc/cpuinfo").read_text(encoding="utf-8"), platform.machine())


def describe(cpuinfo: str, machine: str) -> str:
    """Return what `/proc/cpuinfo` says of the first processor; `machine` where it gives no name (ARM)."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())
    known = list(dict.fromkeys(name for flag, name in _INSTRUCTIONS if flag in flags))
    name = " ".join(fields.get("model name", machine).replace("(R)", "").replace("(TM)", "").split())
    return f"{name} ({', '.join(known)})" if known else name
