"""Other processors: QEMU's user-mode emulator runs this interpreter and its libraries, unchanged.

Neither has AVX-512 or VNNI. Haswell has AVX2 and FMA, and saturates where products of int8 are added; Nehalem has
SSE4.2 and no fused multiply-add, so that its last bits are others. A process that is started there is not emulated.

QEMU 7.2 gathers wrongly: `np.minimum` and `np.maximum` of a float32 array that is not contiguous are wrong on its
Haswell, and on no real processor.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROCESSORS = ("Haswell", "Nehalem")
EMULATOR = "qemu-x86_64"


def _memory_can_be_bounded() -> bool:
    """Return whether a limit of this process's memory is kept. The emulator says yes to it, and does nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 46, hard))
    try:
        return resource.getrlimit(resource.RLIMIT_DATA)[0] == 1 << 46
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


needs_bounded_memory = pytest.mark.skipif(
    not _memory_can_be_bounded(), reason="NOT TESTED: an emulated process has no limit of memory"
)


def emulated(processor: str) -> list[str]:
    """The command that runs this Python on a processor. Without an emulator it skips the test, and fails it in CI."""
    missing = None
    if platform.machine() != "x86_64":
        missing = f"this machine is {platform.machine()}, and the libraries here are for it alone"
    elif shutil.which(EMULATOR) is None:
        missing = f"{EMULATOR} is not installed: apt-get install qemu-user"
    if missing is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"NOT TESTED ON {processor}: {missing}")
    return [EMULATOR, "-cpu", processor, sys.executable]


def run_emulated(processor: str, *arguments: str | Path, cwd: Path) -> str:
    """Run Python with these arguments on a processor; returns what it prints. Shows all of it if it fails."""
    command = [*emulated(processor), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
