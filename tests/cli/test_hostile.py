"""Names and prompts are text wherever they are shown, and any argument is an answer or one line."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from studies.report.tables import markdown_table, markdown_text
from tests.cli.conftest import Outcome
from tuner.cli import _common, main
from tuner.cli._progress import ProgressDisplay
from tuner.errors import LONGEST_LINE, one_line, readable
from tuner.tables import Cells

Run = Callable[..., Outcome]

ZOO = [
    "[bold red]x[/]",
    "[/]",
    "[link=https://example.org]x[/link]",
    ":smile:",
    "\x1b[2J\x1b[31mred",
    "\x1b]8;;https://example.org\x07x\x1b]8;;\x07",
    "\x9b31mC1",
    "bell\x07 back\x08space",
    "over\rwritten",
    "two\nlines",
    "right\u202eleft",
    "zero\u200bwidth\ufeff",
    "lone \ud800",
    "a | b",
    "<script>alert(1)</script>",
    "![x](https://example.org/x.png)",
    "[x](https://example.org)",
    "`code` **bold**",
    "\U0001f468\u200d\U0001f469 emoji",
    "色调",
]
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
texts = st.lists(st.sampled_from(ZOO) | st.text(max_size=8), min_size=1, max_size=3).map("".join)


@pytest.mark.parametrize("text", ZOO)
def test_a_table_in_the_terminal_shows_text_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    _common.print_table(Cells([text], [[text]], key=[text], title=text))
    out = capsys.readouterr().out
    assert not CONTROL.search(out)
    shown = [readable(line).strip() for line in text.splitlines()]
    assert all(out.count(line) >= 3 for line in shown if line and "\r" not in text)


@pytest.mark.parametrize("text", ZOO)
def test_progress_shows_text_as_it_is(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    with ProgressDisplay() as display:
        display.show("trials", 1, 2, text)  # wrong markup raises
    assert "\x1b]8" not in capsys.readouterr().err.replace(
        "\x1b]8;;https://example.org\x07", "", text.count("\x1b]8")
    )


@seed(0)
@settings(max_examples=300, deadline=None)
@given(texts)
def test_markdown_shows_text_as_it_is(text: str) -> None:
    shown = markdown_text(text)
    assert not CONTROL.search(shown)
    assert "\n" not in shown
    assert "<" not in shown
    assert not re.search(r"(?<!\\)\||(?<!\\)`|!\[|\]\(|\]\[", shown)
    row = markdown_table(["name", "x"], [[text, "1"]]).splitlines()
    assert len(row) == 3
    assert len(re.findall(r"(?<!\\)\|", row[2])) == 3


@seed(0)
@settings(max_examples=300, deadline=None)
@given(texts.flatmap(lambda text: st.sampled_from([text, text * 500])))
def test_an_error_is_one_line_of_text(text: str) -> None:
    line = one_line(text)
    assert not CONTROL.search(line)
    assert "\n" not in line
    assert len(line) <= LONGEST_LINE


@pytest.mark.parametrize("text", ["\ud800", "x" * 5000, "[/]", "\x1b[2J", "../" * 2000, "9" * 5000, ""])
@pytest.mark.parametrize(
    "arguments",
    [
        ["presets", "{}"],
        ["report", "{}"],
        ["studies", "--out", "{}"],
        ["flops", "--model", "flux", "--preset", "{}"],
        ["flops", "--model", "flux", "--size", "{}"],
        ["search", "--model", "tiny", "--budget", "{}", "--out", "/nonexistent"],
        ["search", "--model", "tiny", "--budget", "3x", "--prompts", "{}", "--out", "/nonexistent"],
        ["import", "{}", "-o", "x.yaml"],
    ],
)
def test_any_argument_is_an_answer_or_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(*(argument.replace("{}", text) for argument in arguments))
    assert outcome.code in (0, 2)
    if outcome.code == 2:
        last = outcome.err.rstrip("\n").splitlines()[-1]
        assert last.startswith("error: ")
        assert len(last) < LONGEST_LINE + 20


@pytest.mark.parametrize("words", [["search", "--budget", "3x"], ["search", "--study", "it's; a [x] $HOME"]])
def test_the_resume_command_can_be_pasted(words: list[str]) -> None:
    context = click.Context(main.app, obj=words)
    with context:
        command = _common.resume_command()
    assert shlex.split(command) == ["tuner", *words, "--resume"]
    with click.Context(main.app, obj=[*words, "--resume"]):
        assert _common.resume_command() == command


INTERRUPTED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background makes its children ignore it
import studies
from tuner.cli import main
def search(*_, **__):
    print("started", file=sys.stderr, flush=True)
    time.sleep(60)
studies.search = search
main.main(["search", "--model", "tiny", "--budget", "3x", "--prompts", "a b.txt"])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_prints_the_whole_resume_command(number: int, code: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=dict(os.environ)
    )
    assert process.stderr is not None
    while "started" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    said = process.stderr.read()
    assert process.wait() == code
    assert "continue it with: tuner search --model tiny --budget 3x --prompts 'a b.txt' --resume" in said
    assert "Traceback" not in said
