"""What README.md promises of every command: examples in its help, and ``--json`` where a program may read it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tuner.cli.main import app

WITHOUT_JSON = {
    "tuner distill swd": "prints the file that it wrote",
    "tuner export": "prints the file that it wrote, or its text",
    "tuner import": "prints the file that it wrote",
    "tuner sample": "prints the file that it wrote",
    "tuner schedule resize": "prints the file that it wrote",
    "tuner ui": "runs a server and prints nothing",
}


def commands(group: click.Group = app, path: str = "tuner") -> Iterator[tuple[str, click.Command]]:
    """Lists all commands and subcommands, groups too, by what is typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield f"{path} {name}", found
        if isinstance(found, click.Group):
            yield from commands(found, f"{path} {name}")


ALL = dict(commands())
RUN = {name: found for name, found in ALL.items() if not isinstance(found, click.Group)}


def examples(command: click.Command) -> list[str]:
    """Returns the lines that follow "Examples:", without the remarks behind them."""
    after = re.sub(r"\\\n\s*", "", (command.help or "").partition("Examples:\n")[2].partition("\n\n")[0])
    return [line.strip() for line in after.splitlines() if line.strip().startswith("tuner ")]


@pytest.mark.parametrize("name", ALL)
def test_every_help_has_examples_of_this_command(name: str) -> None:
    assert any(line.startswith(f"{name} ") or line == name for line in examples(ALL[name]))


@pytest.mark.parametrize("name", ["tuner", *ALL])
def test_help_fits_80_columns(name: str) -> None:
    told = CliRunner().invoke(app, [*name.split()[1:], "--help"], terminal_width=80).output
    assert [line for line in told.splitlines() if len(line) > 80] == []
    assert "..." not in told.partition("\nCommands:\n")[2]  # a summary that was cut


@pytest.mark.parametrize("name", RUN)
def test_the_options_of_examples_exist(name: str) -> None:
    known = {option for parameter in RUN[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {
        word.partition("=")[0]
        for line in examples(RUN[name])
        if line.startswith(name)
        for word in shlex.split(line.partition("   ")[0])
        if word.startswith("-")
    }
    assert used <= known


@pytest.mark.parametrize("name", RUN)
def test_every_command_that_prints_results_has_json(name: str) -> None:
    has = any("--json" in parameter.opts for parameter in RUN[name].params)
    assert has != (name in WITHOUT_JSON)


def test_a_file_that_hides_a_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "studies.py").write_text("print('imported')\n")
    arguments = [sys.executable, "-m", "tuner", "presets"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"File {str(tmp_path / 'studies.py')!r} hides the package 'studies' of tuner" in done.stderr


def test_the_console_script_does_not_look_in_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "studies.py").write_text("print('imported')\n")
    script = tmp_path / "bin" / "tuner"  # what an installer writes for `tuner = "tuner.cli.main:main"`
    script.parent.mkdir()
    script.write_text("import sys\nfrom tuner.cli.main import main\nsys.exit(main())\n")
    arguments = [sys.executable, str(script), "studies", "--out", "none", "--json"]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "[]")
