"""Run a crowd of `doit` at once: two checkouts on one cache, edited meanwhile, with gc, verify and random kills."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from faults.invariants import (
    RECIPE,
    Broken,
    Clean,
    WatchedProject,
    build_clean,
    check_converged,
    check_no_leftovers,
    check_no_survivors,
    check_nothing_wrong,
    check_outside,
    check_said,
)
from small_project import Ended

WORKERS = 4
EPOCH_SECONDS = 20.0
SALTS = ("one", "two")
NOTES = ("some notes\n", "more notes\n")  # of one size: only the bytes and the times differ
WORDS = ((), (), (), ("-n", "2"), ("-n", "2"), ("both",), ("flat", "taken"), ("verify",), ("gc",), ("plan",), ("why",),
         ("list",))  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class _Crowd:
    """Two checkouts, and the workers and the editor that are at them."""

    def __init__(self, folder: Path, package: Path, seed: int) -> None:
        self.seed = seed
        self.clean = Clean()
        for salt, notes in itertools.product(SALTS, NOTES):
            variant = salt + notes
            where = folder / f"clean {len(self.clean.keys)}"
            build_clean(where, package, self.clean, variant, recipe(salt), {"notes.txt": notes})
        self.checkouts = [WatchedProject(folder / name, package, recipe(SALTS[0])) for name in ("left", "right")]
        for checkout in self.checkouts[1:]:
            checkout.cache.symlink_to(self.checkouts[0].cache, target_is_directory=True)
        self.checkouts[0].cache.mkdir()
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []
        self._lock = threading.Lock()
        self.stop = threading.Event()

    def epoch(self, number: int, seconds: float) -> None:
        """Let the crowd work, wait for its end, and check that one run each ends well."""
        self.stop.clear()
        draws = [random.Random(f"{self.seed} {number} {index}") for index in range(WORKERS + 1)]
        jobs = [threading.Thread(target=self._guarded, args=(self._work, draw)) for draw in draws[1:]]
        jobs.append(threading.Thread(target=self._guarded, args=(self._edit, draws[0])))
        for job in jobs:
            job.start()
        self.stop.wait(seconds)
        self.stop.set()
        for job in jobs:
            job.join()
        if self.broken:
            raise Broken(f"seed {self.seed}, epoch {number}: {self.broken[0]}")
        for checkout in self.checkouts:
            salt, notes = draws[0].choice(SALTS), draws[0].choice(NOTES)
            try:
                self._settle(checkout, salt, notes)
            except Broken as broken:
                raise Broken(f"seed {self.seed}, after epoch {number}, {salt} {notes!r}: {broken}") from None
        self.counts["epochs"] += 1

    def _settle(self, checkout: WatchedProject, salt: str, notes: str) -> None:
        for other in self.checkouts:
            check_no_survivors(other.root)
        check_nothing_wrong(checkout, self.clean)
        _put(checkout.recipe_file, recipe(salt))
        _put(checkout.root / "recipes" / "notes.txt", notes)
        (checkout.root / "pipeline.lock.yaml").unlink(missing_ok=True)
        ended = checkout.run()
        if ended.code:
            raise Broken(f"the last run fails\n{ended.out}\n{ended.err}")
        check_converged(checkout, self.clean, salt + notes)
        for words in (("verify",), ("gc",)):
            ended = checkout.run(*words)
            if ended.code:
                raise Broken(f"{words} fails\n{ended.out}\n{ended.err}")
        check_converged(checkout, self.clean, salt + notes)
        check_no_leftovers(checkout)
        check_outside(checkout)

    def _guarded(self, work: Callable[[random.Random], None], draw: random.Random) -> None:
        try:
            while not self.stop.is_set():
                work(draw)
        except Exception as error:
            self.broken.append(f"{type(error).__name__}: {error}")
            self.stop.set()

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _work(self, draw: random.Random) -> None:
        """One `doit` in one checkout, which is killed now and then."""
        checkout, words = draw.choice(self.checkouts), draw.choice(WORDS)
        process = checkout.launch(*words)
        which = None
        if draw.random() < 0.2:
            which = draw.choice(SIGNALS)
            time.sleep(draw.uniform(0.3, 3.0))
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(which)
        code, out, err = checkout.wait(process, f"doit {words}")
        if which is None or process.returncode >= 0:
            early = which == signal.SIGINT and not out and err.endswith("KeyboardInterrupt\n")
            if not early:  # Control-C while Python was still importing
                _check(words, Ended(code, out, err, 0.0))
        check_nothing_wrong(checkout, self.clean)
        self._count(f"killed by {which.name}" if which else f"doit {' '.join(words)}".rstrip())

    def _edit(self, draw: random.Random) -> None:
        """Edit a recipe or a source, in place or by a rename as an editor does; a source to and fro in a moment."""
        checkout = draw.choice(self.checkouts)
        notes = checkout.root / "recipes" / "notes.txt"
        put = draw.choice([_put, _overwrite])
        match draw.choice(["recipe", "notes", "notes for a moment", "lock"]):
            case "recipe":
                put(checkout.recipe_file, recipe(draw.choice(SALTS)))
            case "notes":
                put(notes, draw.choice(NOTES))
            case "notes for a moment":
                before = notes.read_text()
                put(notes, NOTES[before == NOTES[0]])
                time.sleep(draw.uniform(0.02, 0.3))
                put(notes, before)
            case "lock":
                (checkout.root / "pipeline.lock.yaml").unlink(missing_ok=True)
        self._count("edits")
        self.stop.wait(draw.uniform(0.1, 1.0))


def run(seconds: float, seed: int, folder: Path, package: Path) -> Counter[str]:
    """Let a crowd work for `seconds`, epoch by epoch; returns how often each command ran, was killed, and edits.

    After each epoch one run in each checkout ends well and gives what a clean build gives. Raises Broken with the seed
    and the epoch. The draws repeat with the seed; who meets whom does not.
    """
    crowd = _Crowd(folder, package, seed)
    began = time.monotonic()
    for number in itertools.count():
        left = seconds - (time.monotonic() - began)
        if left <= 0:
            return crowd.counts
        crowd.epoch(number, min(EPOCH_SECONDS, left))
    raise AssertionError


def recipe(salt: str) -> str:
    """The recipe of a salt: its first target says another word."""
    return RECIPE.replace("SALT", salt).replace("SECONDS", "0.1")


def _check(words: tuple[str, ...], ended: Ended) -> None:
    check_said(ended)
    if ended.code not in (0, 1, 2, 3, 130, 143):
        raise Broken(f"doit {words} ends with {ended.code}\n{ended.out}\n{ended.err}")


def _put(path: Path, text: str) -> None:
    """Write a file by another name and a rename."""
    other = path.with_name(f"{path.name}.new")
    other.write_text(text)
    other.replace(path)


def _overwrite(path: Path, text: str) -> None:
    """Write a file in place: for a moment it is empty."""
    path.write_text(text)
