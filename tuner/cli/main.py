"""The ``tuner`` command: finds the commands by file name and turns errors into exit codes."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import click

import tuner
import tuner.cli
from tuner.cli._common import EXIT_FAILURE
from tuner.errors import UserError, one_line, readable

EXIT_USAGE = 2
_OWN = ("objectives", "search_spaces", "studies")
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_EXAMPLES = """\b
Examples:
  tuner search --model tiny --budget 3x          a search for a laptop CPU
  tuner search --model flux --budget 40% -n 200  the same on a GPU
  tuner report STUDY                             the Pareto front as a table
  tuner export STUDY -o best.yaml                the winner as a preset
  tuner sample best.yaml "a red fox" -o fox.png  an image from it

\b
Completion of commands, models, presets, studies in bash (zsh, fish alike):
  eval "$(_TUNER_COMPLETE=bash_source tuner)"    in ~/.bashrc
"""


class _Commands(click.Group):
    """Lists the files of this folder as commands and imports each when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = [name for _, name, _ in pkgutil.iter_modules(tuner.cli.__path__)]
        return sorted(name for name in names if name != "main" and not name.startswith("_"))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"tuner.cli.{name}").command
        return command


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Searches multi-stage sampling schedules for diffusion and flow-matching models.\n\n" + _EXAMPLES,
)
@click.version_option(tuner.__version__, prog_name="tuner")
def app() -> None:
    """The command group; its help is in the decorator."""


def _check_own_packages() -> None:
    """Checks that no file of the user hides a package of this project; ``python -m`` looks in the folder first.

    Raises:
        UserError: If one does.
    """
    home = Path(tuner.__file__).resolve().parents[1]
    for name in _OWN:
        spec = find_spec(name)
        found = Path(spec.origin) if spec and spec.origin else None
        if found is not None and found.resolve() != home / name / "__init__.py":
            raise UserError(
                f"File {str(found)!r} hides the package {name!r} of tuner; rename it, or run the command from "
                "another folder."
            )


def _next_step(out: Path) -> str:
    """Says what to do with the newest study in a folder, or how to make one."""
    newest = max(out.glob("*/settings.json"), key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        return "tuner search --model tiny --budget 3x    a first search, on this machine"
    study = newest.parent
    name = readable(shlex.quote(study.name))
    if (study / "result.json").exists():
        return f"tuner report {name} -o report.html    the page of the newest study"
    return f"tuner report {name}    what it has found; to continue it, repeat its command with --resume"


class Terminated(KeyboardInterrupt):
    """SIGTERM, which batch systems and containers send: everything that Ctrl-C does is done."""


def _terminate(*_: object) -> None:
    raise Terminated


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 failure, 2 usage, 130 interrupted, 143 terminated.

    Args:
        arguments: What follows ``tuner``; the process's own arguments if None.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        _check_own_packages()
        app.main(args=given, prog_name="tuner", standalone_mode=False, obj=given)
    except (KeyboardInterrupt, click.Abort) as error:
        terminated = isinstance(error.__cause__ or error, Terminated)  # click makes an `Abort` of either
        click.echo("terminated" if terminated else "interrupted", err=True)
        sys.exit(EXIT_TERMINATED if terminated else EXIT_INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as help_text:  # a bare `tuner` shows what it can do
        click.echo(f"{help_text.format_message()}\n\nNext:\n  {_next_step(Path('runs'))}", err=True)
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        click.echo(f"error: {one_line(error.format_message())}", err=True)
        sys.exit(EXIT_USAGE)
    except UserError as error:
        click.echo(f"error: {one_line(error)}", err=True)
        sys.exit(EXIT_USAGE)
    except BrokenPipeError:  # the reader, e.g. `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILURE)
    except OSError as error:
        place = "" if error.filename is None else f" {os.fsdecode(error.filename)!r}"
        message = f"the operating system refused{place} ({error.strerror or error})"
        click.echo(f"error: {one_line(f'{message}; check the path, its permissions and the room')}.", err=True)
        sys.exit(EXIT_USAGE)
    except UnicodeEncodeError as error:  # a lone surrogate in an argument
        click.echo(f"error: {one_line(repr(error.object))} is not text ({error.reason}); write UTF-8.", err=True)
        sys.exit(EXIT_USAGE)
