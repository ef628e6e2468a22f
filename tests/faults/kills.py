"""Kill runs at random moments and at aimed ones: `doit`, a step, or both, by every signal that ends a program."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

from faults.invariants import (
    RECIPE,
    Broken,
    Clean,
    WatchedProject,
    build_clean,
    check_converged,
    check_no_survivors,
    check_nothing_wrong,
    check_outside,
    check_said,
    records,
    survivors,
)
from small_project import Ended

SECONDS = "0.05"
VARIANTS = ("one", "two")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
TABLE = "peak memory"
# The calls by which a build changes the disk, and about how often each thread makes them: a kill is aimed at the Nth.
AIMED = {
    "rename": 32, "renameat2": 1, "mkdir": 64, "fsync": 50, "write": 43, "symlink": 5, "unlinkat": 22, "rmdir": 10,
    "flock": 14, "fchmod": 20, "copy_file_range": 1, "pwrite64": 40, "vfork": 5,
}  # fmt: skip
EVENTS = ("doit", "doit", "doit", "aimed", "aimed", "step", "both", "doit twice")


def run(count: int, seed: int, folder: Path, package: Path) -> Counter[str]:
    """Kill `count` runs and let every second one be followed by a run that ends; returns the events by kind.

    Event `n` is drawn from the seed `seed + n`, and starts from a cache that this seed prunes: `run(1, seed + n)`
    repeats it. Raises Broken with that seed.
    """
    clean = Clean()
    project = WatchedProject(folder / "killed", package, recipe(VARIANTS[0]))
    counts: Counter[str] = Counter()
    for number in range(seed, seed + count):
        draw = random.Random(number)
        event = draw.choice(EVENTS)
        words = draw.choice([(), ("-n", "2")])
        variant = draw.choice(VARIANTS)
        if variant not in clean.keys:
            build_clean(folder / f"clean {variant}", package, clean, variant, recipe(variant), {})
        prune(project, draw)
        project.recipe(recipe(variant))
        finished = records(project)
        what = f"{event} {words} {variant}"
        try:
            what += " " + _kill(project, event, words, draw)
            check_no_survivors(project.root)
            check_nothing_wrong(project, clean)
            check_kept(project, finished)
            finished = records(project)
            ended = project.run(*words)
            if ended.code:
                raise Broken(f"the next run fails\n{ended.out}\n{ended.err}")
            check_kept(project, finished)
            check_converged(project, clean, variant)
            check_outside(project)
        except Broken as broken:
            raise Broken(f"seed {number}: {what}: {broken}") from None
        counts[event] += 1
    return counts


def recipe(variant: str) -> str:
    """The recipe of a variant: its first target says another word."""
    return RECIPE.replace("SALT", variant).replace("SECONDS", SECONDS)


def prune(project: WatchedProject, draw: random.Random) -> None:
    """Take something of what was built away, so that there is something to build."""
    match draw.choice(["all", "all", "store", "actions", "dist"]):
        case "all":
            for path in (project.cache, project.root / "dist"):
                shutil.rmtree(path, ignore_errors=True)
            (project.root / "pipeline.lock.yaml").unlink(missing_ok=True)
        case "store":
            shutil.rmtree(project.cache / "artifacts", ignore_errors=True)
            shutil.rmtree(project.cache / "actions", ignore_errors=True)
        case "actions":
            for path in sorted(project.cache.glob("actions/[0-9a-f]*")):
                if draw.random() < 0.6:
                    path.unlink()
        case "dist":
            shutil.rmtree(project.root / "dist", ignore_errors=True)


def check_kept(project: WatchedProject, finished: dict[str, int]) -> None:
    """What was finished is still there, and was not done again."""
    now = records(project)
    if not finished.items() <= now.items():
        raise Broken(f"lost: {sorted(name for name in finished if finished[name] != now.get(name))}")


def _kill(project: WatchedProject, event: str, words: tuple[str, ...], draw: random.Random) -> str:
    """Start a run and end it; returns what was done, in words. What it says before a signal ends it is checked."""
    if event == "aimed":
        call = draw.choice(list(AIMED))
        name = draw.choice(["KILL", "KILL", "KILL", "TERM"])
        number = draw.randint(1, AIMED[call])
        what = f"SIG{name} at {call} {number}"
        aim = ("strace", "-f", "-b", "execve", "-o", os.devnull, "-e", f"trace={call}", "-e")
        process = project.launch(*words, prefix=(*aim, f"inject={call}:signal={name}:when={number}"))
        _check_end(*project.wait(process, what), signalled=name != "KILL")
        return what
    process = project.launch(*words)
    which = draw.choice(SIGNALS)
    if event in ("doit", "doit twice"):
        moment = draw.uniform(0.0, 1.6)
        what = f"{which.name} after {moment:.3f} s"
        time.sleep(moment)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(which)
            if event == "doit twice":
                time.sleep(draw.uniform(0, 0.05))
                process.send_signal(which)
    else:
        which = draw.choice([signal.SIGKILL, signal.SIGTERM])
        delay = draw.uniform(0, 0.25)
        what = f"{which.name} {delay:.3f} s into a step"
        step = _step_of(project, process.pid)
        time.sleep(delay)
        for victim in [step] if event == "step" else [process.pid, step]:
            if victim:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, which)
    signalled = event == "doit" and which != signal.SIGKILL
    _check_end(*project.wait(process, what), signalled=signalled, told=event == "step")
    return what


def _step_of(project: WatchedProject, doit: int) -> int | None:
    """A process of a step, once there is one; None if the run ends before."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for pid in survivors(project.root):
            with contextlib.suppress(OSError):
                if b"artifacts.run.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        if Path(f"/proc/{doit}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return None
    raise Broken("no step began")


def _check_end(code: int, out: str, err: str, *, signalled: bool, told: bool = False) -> None:
    """What a killed run said: never a traceback; a table if a signal that can be caught came once work had begun."""
    if _is_before_the_program(out, err):
        return
    check_said(Ended(code, out, err, 0.0) if told or signalled else Ended(min(code, 0), out, err, 0.0))
    if signalled and "small:" in out and TABLE not in out and "unchanged" not in out:
        raise Broken(f"no table, exit code {code}\n{out}\n{err}")


def _is_before_the_program(out: str, err: str) -> bool:
    """Whether Control-C came while Python was still importing: it says so in its own way, before a word of ours."""
    if out or not err.endswith("KeyboardInterrupt\n"):
        return False
    frames = [line.rpartition(" in ")[2] for line in err.splitlines() if "/artifacts/" in line]
    return all(name == "<module>" or name[:1].isupper() for name in frames)  # of a module's body, or of a class's
