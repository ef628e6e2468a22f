"""What a person sees: plain lines in a pipe, a live display on a terminal, and a table at the end."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess

import pytest

from small_project import DOIT, Project


def test_a_run_says_in_plain_lines_what_happens_and_ends_with_a_table(project: Project) -> None:
    ended = project.doit()
    # On a busy machine a step may take so long that its progress is told too: such lines are indented.
    lines = [line.rstrip() for line in ended.out.splitlines() if not line.startswith("        small:")]
    assert lines[:4] == [
        lines[0],
        "      building small:first",
        lines[2],
        "      building small:second",
    ]
    assert re.fullmatch(r"\[1/5\] found small:notes  11 B(  \d+\.\d s)?", lines[0])
    assert re.fullmatch(r"\[2/5\] built small:first  12 B(  \d+\.\d s)?", lines[2])
    table = [line.split() for line in lines if line.lstrip().startswith("small:")]
    assert [(row[0], row[1]) for row in table] == [
        ("small:notes", "found"),
        ("small:first", "built"),
        ("small:second", "built"),
        ("small:third", "built"),
        ("small:flat", "built"),
    ]
    assert re.search(r"target +status +size +seconds +peak memory +metrics", ended.out)
    assert re.search(r"small:first +built +12 B .*\d MB +lines 3$", "\n".join(lines), flags=re.MULTILINE)
    assert re.fullmatch(r"1 found, 4 built \(\d+\.\d s\)", lines[-2])
    assert lines[-1] == "laid out: dist/small/flat"
    assert "\x1b" not in ended.out


def test_a_second_run_says_one_line(built_project: Project) -> None:
    assert re.fullmatch(r"5 targets, all unchanged \(0\.\d s\)\n", built_project.doit().out)


def test_the_table_says_what_was_restored_and_what_was_left(built_project: Project) -> None:
    (built_project.cache / "small" / "second").unlink()
    out = built_project.doit().out
    assert re.search(r"^\[\d/5\] restored small:second  12 B$", out, flags=re.MULTILINE)
    assert re.search(r"small:first +unchanged +12 B", out)
    assert re.search(r"^4 unchanged, 1 restored", out, flags=re.MULTILINE)


def run_on_a_terminal(project: Project, *words: str) -> tuple[int, str]:
    """Run `doit` on a pseudo-terminal. Returns its exit code and what the terminal was sent."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in project.environment.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        [*DOIT, *words], cwd=project.root, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    sent = b""
    while True:
        try:
            sent += os.read(ours, 65536)
        except OSError:  # the terminal's other end is closed
            break
    os.close(ours)
    return process.wait(), sent.decode()


def test_on_a_terminal_the_run_is_shown_live(project: Project) -> None:
    project.replace("lines: 3", "lines: 8\n      seconds: 0.8")
    code, sent = run_on_a_terminal(project)
    assert code == 0, sent
    assert "writing" in sent, "the step's own words"
    assert "\x1b[2K" in sent, "a line that is written over"
    assert "small:flat" in sent
    assert "1 found, 4 built" in sent
    assert "Traceback" not in sent


def test_on_a_terminal_a_failure_is_told_after_the_table(project: Project) -> None:
    project.recipe("targets:\n  bad: {step: misbehave, params: {how: refuse}}\n")
    code, sent = run_on_a_terminal(project, "-n", "2")
    assert code == 1
    assert sent.rstrip().endswith("small:bad: this input is not to my taste\r\n  fix: give me another")


def test_a_reader_that_leaves_does_not_stop_the_build(project: Project) -> None:
    process = project.start()
    assert process.stdout is not None
    assert process.stderr is not None
    assert "small:notes" in process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=30)
    assert "Traceback" not in err
    assert project.built() == ["first", "second", "third", "flat"]


def test_a_pattern_is_taken_by_every_command(built_project: Project) -> None:
    listed = built_project.doit("list", "f*").out.splitlines()
    assert [line.split()[0] for line in listed] == ["first", "flat"]
    for words, end in (
        (("plan", "fi*"), "1 to leave"),
        (("why", "fi*"), "small:first is up to date"),
        (("verify", "fi*"), "1 of 1 targets intact"),
        (("fi*",), "1 target, unchanged"),
    ):
        assert end in built_project.doit(*words).out


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command",
    ["", "list --all", "plan", "why", "help", "--help", "help plan", "--version", "step", "step write_text --help",
     "tabcompletion", "verify", "gc", "outdated", "pin notes", "schema"],
)  # fmt: skip
def test_a_reader_that_leaves_a_command_is_no_error(built_project: Project, command: str, unbuffered: str) -> None:
    pipeline = f"set -o pipefail; {shlex.join(DOIT)} {command} | true"
    ended = subprocess.run(
        ["bash", "-c", pipeline],
        cwd=built_project.root, env=built_project.environment | {"PYTHONUNBUFFERED": unbuffered},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_a_step_prints_is_kept_in_its_log(own_project: Project) -> None:
    step = own_project.package / "steps" / "write_text.py"
    own_project.replace("    with (out", "    print('a library talks')\n    with (out", path=step)
    ended = own_project.doit("first")
    assert "a library talks" not in ended.out
    assert (own_project.cache / "logs" / "small" / "first.log").read_text() == "a library talks\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--jobs", "2"), "option --jobs not recognized\n  fix: see the options with: doit help run"),
        (("--continu",), "option --continu not recognized\n  fix: did you mean '--continue'?"),
        (("--con", "first"), "option --con not recognized\n  fix: did you mean '--continue'?"),
        (("first", "--contniue"), "option --contniue not recognized\n  fix: did you mean '--continue'?"),
        (("--proces=2",), "option --proces not recognized\n  fix: did you mean '--process'?"),
        (("--fil", "dodo.py", "list"), "option --fil not recognized\n  fix: did you mean '--file'?"),
        (("list", "--al"), "option --al not recognized\n  fix: did you mean '--all'?"),
        (("plan", "--forse"), "option --forse not recognized\n  fix: leave it out: doit plan takes no options"),
        (("help", "plann"), "no command or target is called 'plann'\n  fix: did you mean 'plan'?"),
        (("help", "firsst"), "no command or target is called 'firsst'\n  fix: did you mean 'first'?"),
        (
            ("help", "task"),
            "no command or target is called 'task'\n  fix: see the commands with: doit help; ",
        ),
        (("help", "clean"), "doit clean: targets are not removed one by one\n  fix: "),
        (("help", "a", "b"), "help: takes one command or target, got 2\n  fix: doit help a"),
        (("help", "--forse"), "option --forse not recognized\n  fix: see the options with: doit help help"),
        (("tabcompletion", "--shel"), "option --shel not recognized\n  fix: did you mean '--shell'?"),
        (("step", "write_text", "--ot", "x"), "step write_text: takes no option '--ot'\n  fix: did you mean '--out'?"),
        (("plann",), "no target is called 'plann'\n  fix: did you mean the command 'doit plan'?"),
        (("-n", "two"), "-n JOBS, --process=JOBS: must be a whole number, got 'two'\n  fix: correct the option"),
        (("-s", "second"), "option -s not recognized\n  fix: see the options with: doit help run"),
        (("list", "-s"), "option -s not recognized\n  fix: see the options with: doit help list"),
        (("-n", "0"), "-n: must be from 1 to 1000, got 0\n  fix: correct it: doit -n 2"),
        (("-n", "-1"), "-n: must be from 1 to 1000, got -1\n  fix: correct it: doit -n 2"),
        (("zz*",), "no target matches 'zz*'\n  fix: see them all with: doit list --all"),
        (("build",), "no target is called 'build'\n  fix: doit TARGET builds; see the targets with: doit list"),
        (("biuld",), "no target is called 'biuld'\n  fix: doit TARGET builds; see the targets with: doit list"),
        (("plan", "-n"), "option -n not recognized\n  fix: leave it out: doit plan takes no options"),
        (("-n", "99999999999999999999"), "-n: must be from 1 to 1000, got 99999999999999999999\n  fix: "),
        (("-n", "9" * 5000), "-n JOBS, --process=JOBS: must be a whole number, got '999"),
        (("",), "a word of the command line is empty\n  fix: name a target, or leave the word out"),
        (("list", ""), "a word of the command line is empty\n  fix: "),
        (("x" * 100_000,), f"no target is called '{'x' * 60}...{'x' * 17}'\n  fix: see them all with: "),
        (("list", "a\nb"), r"no target is called 'a\nb'"),
        (("plan", "\x1b[31mfirst"), r"no target matches '\x1b[31mfirst'"),
        (("\udcff\udcfe",), r"no target is called '\udcff\udcfe'"),
        (("why", "\u202efirst"), r"no target is called '\u202efirst'"),
        (("a=\nb",), r"'a=\nb': no target has a '=' in its name"),
        (("--\x1b\n",), r"option --\x1b\n not recognized"),
        (
            ("list", "--sort", "size"),
            "--sort=ORDER: must be one of name, definition, got 'size'\n  fix: correct the option",
        ),
        (("clean", "--\x1b"), "doit clean: targets are not removed one by one"),
        (("--db-file", "x"), "option --db-file not recognized"),
        (("-f", "pipeline.yaml"), "-f 'pipeline.yaml': is not a Python file\n  fix: name the project's dodo.py"),
        (("-f", "none.py"), "Could not find dodo file '"),
        (("-d", "none"), "Specified 'dir' path must be a directory."),
        (("list", "--template", "{size}"), "--template '{size}': KeyError: 'size'\n  fix: use {name} and {doc}"),
        (("list", "--template", "{"), "--template '{': ValueError: "),
    ],
)
def test_a_bad_option_is_told_in_two_lines(built_project: Project, words: tuple[str, ...], said: str) -> None:
    ended = built_project.doit(*words)
    assert ended.code == 3
    assert ended.err.startswith(f"ERROR: {said}"), ended.err
    assert len(ended.err.splitlines()) == 2


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("first", "-h"), ("-n", "2", "--help"), ("help", "-h")])
def test_the_usual_options_for_help_print_what_doit_help_prints(built_project: Project, words: tuple[str, ...]) -> None:
    ended = built_project.doit(*words)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == built_project.doit("help").out
    assert ended.out.startswith("doit [TARGET ...]")


@pytest.mark.parametrize("command", ["run", "plan", "list", "gc", "pin"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_usual_options_for_help_after_a_command_print_its_options(
    built_project: Project, command: str, option: str
) -> None:
    ended = built_project.doit(command, option)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == built_project.doit("help", command).out
    assert f" {command} [TARGET ...]" in ended.out or command in ("gc", "pin")


def test_help_names_a_target_and_no_option_that_has_no_meaning_here(built_project: Project) -> None:
    assert built_project.doit("help", "first").out == "first  Write a text.\n"
    assert "OPTIONS" not in built_project.doit("help", "plan").out
    for command in ("run", "list", "help", "tabcompletion"):
        said = built_project.doit("help", command).out
        assert re.search(rf"^USAGE\n    doit {command}\b", said, flags=re.MULTILINE)
        assert "\nOPTIONS\n    -" in said
        assert not re.search(r"config:|sub-task|dodo FILE|DOIT_|%\(", said), said


@pytest.mark.parametrize("words", [(), ("list",), ("first",)])
def test_a_project_without_its_settings_of_doit_is_told(built_project: Project, words: tuple[str, ...]) -> None:
    (built_project.root / "pyproject.toml").unlink()
    ended = built_project.doit(*words)
    assert ended.code == 3
    said = r"ERROR: pyproject.toml, which .*, is missing\n  fix: put back the pyproject.toml of this project\n"
    assert re.fullmatch(said, ended.err)


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}],
    ids=["ascii", "C"],
)
def test_a_terminal_without_the_characters_of_a_recipe_is_sent_their_escapes(
    project: Project, environment: dict[str, str]
) -> None:
    project.recipe("targets:\n  a: {step: write_text, params: {text: ä}}\n")
    assert project.doit("a").code == 0
    project.recipe("targets:\n  a: {step: write_text, params: {text: 中}}\n")
    for words in (("plan",), ("why", "a"), ()):
        ended = project.doit(*words, environment=environment)
        assert (ended.code, ended.err) == (0, "")
        assert r'targets.a.params.text: "\xe4" -> "\u4e2d"' in ended.out


def test_no_text_of_a_recipe_or_a_step_is_markup_or_moves_the_terminal(project: Project) -> None:
    hostile = r"\e]0;x\a\e[31m[red]a[/nothing]\u202e\u2028:smile:"
    project.recipe(f'targets:\n  a: {{step: write_text, params: {{text: "a{hostile}", seconds: 0.3}}}}\n')
    assert project.doit("a").code == 0
    project.recipe(f'targets:\n  a: {{step: write_text, params: {{text: "b{hostile}", seconds: 0.3}}}}\n')
    said = [project.doit(*words).out for words in (("plan",), ("why", "a"))]
    code, sent = run_on_a_terminal(project)
    assert code == 0, sent
    for text in (*said, sent):
        assert r"[31m[red]a[/nothing]\u202e\u2028:smile:" in text
        assert "\x1b[31m" not in text
        assert "\x1b]0" not in text
        assert "\u202e" not in text


def test_a_target_that_is_named_twice_hides_no_other(built_project: Project) -> None:
    for words in (("first", "first", "flat"), ("first", "fi*", "flat")):
        assert "4 targets, all unchanged" in built_project.doit(*words).out


def test_a_pattern_may_fit_a_source(built_project: Project) -> None:
    assert "5 targets, all unchanged" in built_project.doit("*").out
    assert "1 target, unchanged" in built_project.doit("no*").out
    listed = built_project.doit("list", "*").out.splitlines()
    assert {line.split()[0] for line in listed} == {"small:notes", "first", "second", "third", "flat"}


@pytest.mark.parametrize("command", ["", "list", "plan"])
def test_without_a_standard_output_nothing_is_said(project: Project, command: str) -> None:
    ended = subprocess.run(
        ["bash", "-c", f"{shlex.join(DOIT)} {command} >&-"],
        cwd=project.root, env=project.environment, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    assert project.built() == ([] if command else ["first", "second", "third", "flat"])


def test_options_may_follow_the_targets(built_project: Project) -> None:
    for words in (("first", "-n", "2"), ("first", "--continue"), ("small", "-n2"), ("list", "first", "--quiet")):
        ended = built_project.doit(*words)
        assert (ended.code, ended.err) == (0, ""), words
