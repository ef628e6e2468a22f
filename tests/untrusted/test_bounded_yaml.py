from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from artifacts.untrusted import bounded_yaml
from artifacts.untrusted.bounded_yaml import YamlBoundError, check_events, load_plain
from faults.hostile_checkpoints import CONFIG, unpack

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))


def _check(text: str) -> None:
    check_events(text, max_bytes=1000, max_depth=3)


@pytest.mark.parametrize(
    "text",
    ["", "a", "a: {b: {c: d}}", "[[[1, 2]], [[3]], [[]]]", "a: '&b'\nc: '*d'", "- - - 1\n", "# &a *b\n", "a: 3 & 4"],
)
def test_a_text_within_the_bounds_is_accepted(text: str) -> None:
    _check(text)


@pytest.mark.parametrize(
    ("text", "line", "column", "problem"),
    [
        ("a: 1\nb: &x 2", 2, 4, "anchor 'x': anchors and aliases are not read"),
        ("a: &x\n  b: *x", 1, 4, "anchor 'x'"),
        ("a: *x", 1, 4, "alias 'x'"),
        ("&x a: 1", 1, 1, "anchor 'x'"),
        (f"- &{'x' * 500} 1", 1, 3, f"anchor '{'x' * 39}…'"),
        (BOMB, 1, 5, "anchor 'a0'"),
        ("- - - - 1", 1, 7, "nested more than 3 deep"),
        ("a:\n  b:\n    c: {d: 1}", 3, 8, "nested more than 3 deep"),
        ("? ? ? ? a", 1, 7, "nested more than 3 deep"),
        ("a" * 1001, 1, 1, "the text has 1001 bytes, at most 1000 are read"),
        ("é" * 501, 1, 1, "the text has 1002 bytes"),
    ],
)
def test_a_text_beyond_a_bound_is_refused_at_its_line_and_column(
    text: str, line: int, column: int, problem: str
) -> None:
    text = text if problem.startswith("the text") else text[:1000]
    with pytest.raises(YamlBoundError) as raised:
        _check(text)
    assert (raised.value.line, raised.value.column) == (line, column)
    assert raised.value.problem.startswith(problem)
    assert str(raised.value) == f"line {line}, column {column}: {raised.value.problem}"


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\x07", "}"])
def test_what_is_not_yaml_raises_what_a_loader_raises(text: str) -> None:
    with pytest.raises(yaml.YAMLError) as raised:
        _check(text)
    with pytest.raises(type(raised.value)):
        yaml.safe_load(text)


@pytest.mark.parametrize("loader", [bounded_yaml.LOADER, yaml.SafeLoader], ids=["fastest", "python"])
@pytest.mark.parametrize(
    "text",
    [
        *(repeated * (1_000_000 // len(repeated)) for repeated in ("[", "{a: ", "- ", "? ", "[{", "{[")),
        "".join(f"{' ' * depth}a:\n" for depth in range(1000)),
    ],
    ids=lambda text: repr(text[:5]),
)
def test_a_megabyte_that_nests_is_refused_at_once_and_without_recursion(
    monkeypatch: pytest.MonkeyPatch, text: str, loader: type
) -> None:
    monkeypatch.setattr(bounded_yaml, "LOADER", loader)
    began = time.monotonic()
    with pytest.raises(YamlBoundError, match="nested more than 50 deep"):
        check_events(text, max_bytes=1_000_000, max_depth=50)
    assert time.monotonic() - began < 5


def test_checking_takes_no_memory_for_what_an_alias_would_repeat() -> None:
    script = (
        "import resource, sys\nfrom artifacts.untrusted.bounded_yaml import YamlBoundError, check_events\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    check_events(sys.stdin.read(), max_bytes=10**6, max_depth=50)\n"
        "except YamlBoundError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], input=BOMB, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000  # KiB


def test_directives_whose_time_grows_with_their_square_are_refused_at_once() -> None:
    directives = "".join(f"%TAG !a{number}! b\n" for number in range(50_000))
    began = time.process_time()
    with pytest.raises(YamlBoundError, match="line 2, column 1: more than 100 %TAG directives"):
        check_events(f"# comment\n{directives}--- a\n", max_bytes=1_000_000, max_depth=50)
    assert time.process_time() - began < 5  # to parse them takes 48 s


SCALARS = """
a: [1e-5, 1.0e-05, 1e5, 1.5e3, 1.5e+3, .5, -.5, .5e3, 12., +1e5, .inf, -.inf, 1_000, 0x1f, 010, 0b11, 0o7, 1:30]
b: [2020-01-01, yes, no, on, off, true, ~, null, '', '1', 'on', "\\u2581the", ▁, '=', '<<', -, a b]
c: {d: {}, e: [], f: text, 1: 2}
"""


def test_values_are_those_that_omegaconf_reads(tiny_checkpoint: Path) -> None:
    from omegaconf import OmegaConf

    texts = [unpack(path)[CONFIG].decode() for path in tiny_checkpoint.parents[1].glob("*/*.nemo")]
    assert len(texts) == 2
    for text in (SCALARS, *texts):
        assert load_plain(text, max_bytes=10**6, max_depth=20) == OmegaConf.to_container(OmegaConf.create(text))


@pytest.mark.parametrize(
    "text",
    ["a: !!int x", "a: !!float [1]", "a: !!bool x", "a: !!int ''", "a: 0x_", "!!set {a}", "!!omap [a: 1]", "a: ="],
)
def test_a_tag_that_does_not_fit_is_an_error_of_yaml(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        load_plain(text, max_bytes=10**6, max_depth=20)
