"""A processor is described by its name and by the instructions that decide which kernels run."""

from __future__ import annotations

import pytest

from artifacts.runtime.processor import describe, processor

EPYC = "processor\t: 0\nmodel name\t: AMD EPYC 7763 64-Core Processor\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\n"
XEON = "model name : Intel(R) Xeon(R)  Gold 6230\nflags : avx2 avx512f avx512_vnni\n"
GRAVITON = "processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd asimddp i8mm sve\nCPU implementer\t: 0x41\n"


@pytest.mark.parametrize(
    ("cpuinfo", "machine", "expected"),
    [
        (EPYC, "x86_64", "AMD EPYC 7763 64-Core Processor (AVX2)"),
        (XEON, "x86_64", "Intel Xeon Gold 6230 (AVX-512, VNNI)"),
        (GRAVITON, "aarch64", "aarch64 (SVE, I8MM, DOTPROD)"),
        ("model name : Intel Core i7\nflags : sse4_1 sse4_2\n", "x86_64", "Intel Core i7 (SSE4.1)"),
        ("", "riscv64", "riscv64"),
    ],
)
def test_cpuinfo_becomes_a_name_and_a_few_instructions(cpuinfo: str, machine: str, expected: str) -> None:
    assert describe(cpuinfo, machine) == expected


def test_this_machine_has_a_processor() -> None:
    assert processor()
    assert "\n" not in processor()
