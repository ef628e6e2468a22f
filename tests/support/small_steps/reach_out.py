"""Reach for what is not the step's.

Tries what a hostile input would have a step do, and writes down what came of it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from artifacts.params import StepParams

TOOLS = ()


class Params(StepParams):
    """What is reached for: a secret file, a folder to write in, a file to spoil, and a port of this machine."""

    secret: str = ""
    folder: str = ""
    victim: str = ""
    port: int = 9


def run(out: Path, params: Params, *, source: Path | None = None) -> None:
    """Write `came.json`: for each attempt "done", or the name of the error."""
    victim, folder = Path(params.victim), Path(params.folder)
    attempts: dict[str, Callable[[], object]] = {
        "read a secret": lambda: Path(params.secret).read_bytes(),
        "list its folder": lambda: list(Path(params.secret).parent.iterdir()),
        "read a parent's environment": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
        "write outside": lambda: (folder / "new").write_text("new"),
        "append": lambda: victim.open("a").close(),
        "empty": lambda: os.truncate(victim, 0),
        "remove": victim.unlink,
        "rename": lambda: victim.rename(out / "stolen"),
        "link": lambda: os.link(victim, out / "linked"),
        "make a folder": (folder / "made").mkdir,
        "remove a folder": folder.rmdir,
        "open a socket": lambda: socket.create_connection(("127.0.0.1", params.port), timeout=5),
        "send a datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "open a local socket": lambda: socket.socket(socket.AF_UNIX),
        "send a datagram by a pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
        "limit a parent": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CORE),
        "signal a parent": lambda: os.kill(os.getppid(), signal.SIGCONT),
        "leave the session": os.setsid,
        "let a program write": lambda: _by_program(folder / "new"),
    }
    if source is not None:
        attempts["write an input"] = lambda: source.open("a").close()
        attempts["read an input"] = source.read_bytes
    came = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            came[name] = "done"
        except OSError as error:
            came[name] = type(error).__name__
    victim.chmod(0o777)  # answered as done, and not done
    (out / "came.json").write_text(json.dumps(came))


def _by_program(path: Path) -> None:
    done = subprocess.run([sys.executable, "-S", "-c", f"open({str(path)!r}, 'w')"], capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(done.stderr)
