"""Name and vector instructions of this machine's processor."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

# Linux's name of an instruction set, and the vendor's. Runtimes choose their kernels by the widest of the first group,
# and their integer kernels by the others.
_WIDEST = (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("avx", "AVX"), ("sse4_1", "SSE4.1"), ("sve", "SVE"))
_INTEGER = (
    ("amx_int8", "AMX"), ("avx512_vnni", "VNNI"), ("avx_vnni", "VNNI"), ("i8mm", "I8MM"), ("asimddp", "DOTPROD"),
)  # fmt: skip


@cache
def processor() -> str:
    """Return the processor's name and instructions, for example `AMD EPYC 7763 64-Core Processor (AVX2)`."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # a container may hide it
        cpuinfo = ""
    return describe(cpuinfo, platform.machine())


def describe(cpuinfo: str, machine: str) -> str:
    """Return name and instructions of the first processor in `/proc/cpuinfo`; `machine` if it has no name (ARM)."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())
    widest = next(((name,) for flag, name in _WIDEST if flag in flags), ())
    known = dict.fromkeys([*widest, *(name for flag, name in _INTEGER if flag in flags)])
    name = " ".join(fields.get("model name", machine).replace("(R)", "").replace("(TM)", "").split())
    return f"{name} ({', '.join(known)})" if known else name
