"""The pages of the documentation name commands, options and messages that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tuner.cli.main import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
PACKAGES = ("tuner", "studies", "search_spaces", "objectives")


def commands(text: str) -> Iterator[list[str]]:
    """Finds the lines of blocks without a language, or of a shell, that run ``tuner``."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language in ("", "sh", "console"):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                words = line.removeprefix("$ ").removeprefix(".venv/bin/")
                if re.match(r"tuner [a-z]+ ", words + " "):
                    yield shlex.split(words.split("  ")[0], comments=True)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_of_a_page_exists(page: str) -> None:
    context = click.Context(app)
    for _, name, *arguments in commands((DOCS / page).read_text(encoding="utf-8")):
        command = app.get_command(context, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            command = command.get_command(context, arguments[0])
            assert command is not None, arguments[0]
        known = {option for parameter in command.get_params(context) for option in parameter.opts}
        known |= {option for parameter in command.get_params(context) for option in parameter.secondary_opts}
        used = {word.partition("=")[0] for word in arguments if re.match(r"--?[a-z]", word)}
        assert used <= known, (name, used - known)


def test_every_message_of_the_troubleshooting_page_stands_in_the_code() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    code = " ".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    )
    rows = [row for row in text.splitlines() if row.startswith("| `")]
    messages = [message for row in rows for message in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(messages) > 30
    assert [message for message in messages if message not in code] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_with_a_title_and_a_sentence(page: str) -> None:
    title, blank, sentence = (DOCS / page).read_text(encoding="utf-8").splitlines()[:3]
    assert title.startswith("# ")
    assert blank == ""
    assert re.match(r"[A-Z`]", sentence), sentence
