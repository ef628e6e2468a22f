"""Draw everyday English sentences from a small grammar, each belonging to exactly one split.

A sentence's split follows from its own text (a hash), so that no sentence is ever in two splits, however many are drawn
and in whatever order. Every word is spelt as it is spoken: lower case, no digits, no punctuation, no homophones.
"""

from __future__ import annotations

import hashlib
import random


def _words(line: str) -> tuple[str, ...]:
    return tuple(line.split())


DIGITS = _words("zero one two three four five six seven eight nine")
TEENS = _words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
NAMES = _words(
    "anna ben carla david emma frank grace henry iris jack kate leo maria nora oscar paul rosa sam tina victor"
)
PLACES = _words(
    "kitchen garage office bedroom garden station library market hospital school museum harbour bridge airport hotel"
    " park"
)
DEVICES = _words("door window light music timer robot camera heater lamp fan")
THINGS = _words(
    "letter ticket bottle box key map phone table chair book story song cat cap cup coat goat boat bike bag bread milk"
    " coffee apple fish dinner"
)
ADJECTIVES = _words("old new big small quick slow heavy quiet red green white black yellow warm cold")
VERBS = _words("call open close start stop play move set bring find")
PAST = _words("lost found saw bought sold carried wanted dropped cleaned painted")
PRESENT = _words("likes wants needs keeps hides reads sells")
DAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
TIMES = _words("morning evening afternoon night")
WEATHER = _words("rain snow wind fog sunshine thunder")
VEHICLES = _words("train bus ferry tram plane taxi")
DIRECTIONS = _words("left right north south east west")
SPLITS = ("train", "validation", "calibration", "evaluation")


def number(rng: random.Random) -> str:
    """A number from ten to nine hundred and ninety nine, in words."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(TEENS)
    if kind < 0.5:
        return rng.choice(TENS)
    if kind < 0.8:
        return f"{rng.choice(TENS)} {rng.choice(DIGITS[1:])}"
    return f"{rng.choice(DIGITS[1:])} hundred and {rng.choice(TENS)} {rng.choice(DIGITS[1:])}"


def thing(rng: random.Random) -> str:
    """A noun, often with an adjective before it."""
    noun = rng.choice(THINGS)
    return f"{rng.choice(ADJECTIVES)} {noun}" if rng.random() < 0.5 else noun


def _digits(rng: random.Random) -> str:
    return " ".join(rng.choice(DIGITS) for _ in range(rng.randint(3, 7)))


def _dial(rng: random.Random) -> str:
    return f"please call {rng.choice(NAMES)} on {_digits(rng)}"


def _command(rng: random.Random) -> str:
    where = rng.choice(
        [f"in the {rng.choice(PLACES)}", f"near the {rng.choice(THINGS)}", f"after {number(rng)} seconds"]
    )
    return f"{rng.choice(VERBS)} the {rng.choice(DEVICES)} {where}"


def _two_commands(rng: random.Random) -> str:
    return (
        f"{rng.choice(VERBS)} the {rng.choice(PLACES)} {rng.choice(DEVICES)} and {rng.choice(VERBS)} the {thing(rng)}"
    )


def _past(rng: random.Random) -> str:
    when = rng.choice([f"on {rng.choice(DAYS)}", f"yesterday {rng.choice(TIMES)}", f"at the {rng.choice(PLACES)}"])
    return f"{rng.choice(NAMES)} {rng.choice(PAST)} the {thing(rng)} {when}"


def _present(rng: random.Random) -> str:
    habit = f"{rng.choice(NAMES)} {rng.choice(PRESENT)} {number(rng)} {rng.choice(ADJECTIVES)} things"
    return f"{habit} under the {thing(rng)}"


def _journey(rng: random.Random) -> str:
    return (
        f"the {rng.choice(VEHICLES)} from the {rng.choice(PLACES)} leaves on {rng.choice(DAYS)} {rng.choice(TIMES)}"
        f" at {rng.choice(TEENS)} {rng.choice(TEENS)}"
    )


def _weather(rng: random.Random) -> str:
    weather = f"{rng.choice(WEATHER)} and {rng.choice(WEATHER)}"
    return f"there will be {weather} in the {rng.choice(DIRECTIONS)} on {rng.choice(DAYS)}"


def _way(rng: random.Random) -> str:
    return (
        f"turn {rng.choice(DIRECTIONS)} behind the {rng.choice(PLACES)} and walk {number(rng)} steps"
        f" {rng.choice(DIRECTIONS)}"
    )


def _price(rng: random.Random) -> str:
    return f"the {thing(rng)} is {number(rng)} euros but {rng.choice(NAMES)} has only {number(rng)}"


def _list(rng: random.Random) -> str:
    return f"bring the {thing(rng)} the {thing(rng)} and a {thing(rng)}"


def _people(rng: random.Random) -> str:
    first, second, third = rng.sample(NAMES, 3)
    return f"{first} {second} and {third} are waiting at the {rng.choice(PLACES)} with {number(rng)} people"


FORMS = (_digits, _dial, _command, _two_commands, _past, _present, _journey, _weather, _way, _price, _list, _people)


def split_of(text: str) -> str:
    """The one split that a sentence belongs to: 85 % train, 5 % validation, 5 % calibration, 5 % evaluation."""
    percent = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100
    return SPLITS[0] if percent < 85 else SPLITS[1 + (percent - 85) // 5]


def draw(split: str, count: int, seed: int) -> list[str]:
    """`count` different sentences of a split, in drawn order; the same for the same arguments."""
    rng = random.Random(f"{split}/{seed}")
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        text = rng.choice(FORMS)(rng)
        if split_of(text) == split:
            drawn[text] = None
    return list(drawn)
