"""What several commands share: option types, the JSON switch, tables."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from tuner.errors import masked, readable
from tuner.tables import Cells, View, layout

if TYPE_CHECKING:
    from rich.console import Console

    from studies import StudyResult

_PIPE_WIDTH = 180
EXIT_FAILURE = 1
"""The command did its work, and the outcome is a failure."""
_WIDE = 1000
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


class SizeType(click.ParamType[tuple[int, int]]):
    """An image size, HEIGHTxWIDTH or one number for a square."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parses ``1024x768`` or ``512``."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", str(value).strip().lower())
        if not found:
            self.fail(
                f"{value!r} is not a size; write HEIGHTxWIDTH in pixels, at most 999999, e.g. 1024x768, or 512.",
                param,
                ctx,
            )
        height = int(found[1])
        return height, int(found[2] or height)


class DurationType(click.ParamType[float]):
    """A length of time: ``90s``, ``30m``, ``2h`` or seconds."""

    name = "T"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value).strip().lower())
        if not found or float(found[1]) == 0:
            self.fail(f"{value!r} is no length of time; write 90s, 30m, 2h or seconds, more than 0.", param, ctx)
        return float(found[1]) * _SECONDS[found[2]]


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
out_option = click.option(
    "--out", default="runs", show_default=True, metavar="DIR", help="Folder that holds the studies."
)
chunk_option = click.option(
    "--chunk",
    type=click.IntRange(1),
    metavar="N",
    help="Images drawn as one batch; by default 8, fewer where they are large, and one video.",
)
size_option = click.option("--size", type=SizeType(), help="Output size in pixels; by default the model's.")


def add_options(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """Adds options to a command, which its help lists in their order."""
    for option in reversed(options):
        command = option(command)
    return command


_MODEL_OPTIONS = (
    click.option("--guidance", type=float, metavar="G", help="Guidance scale; by default the model's."),
    click.option("--negative-prompt", metavar="TEXT", help="What true guidance leads away from."),
    click.option("--lora", metavar="SOURCE[:WEIGHT]", help="LoRA to load: file, folder or hub id; weight 1."),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        help="Precision of the weights; by default bfloat16 on a GPU, float32 on the CPU.",
    ),
    click.option(
        "--quantize",
        type=click.Choice(["nf4", "int8", "torchao-int8", "torchao-fp8"]),
        help="Smaller weights, by bitsandbytes or torchao.",
    ),
    click.option("--transformer", metavar="FILE", help="GGUF or safetensors file with the denoiser's weights."),
    click.option(
        "--offload",
        type=click.Choice(["model", "group", "sequential", "auto"]),
        help="Keep on the GPU only the component that runs, two layers, or one; auto: model once memory runs out.",
    ),
    click.option(
        "--free-text-encoders",
        is_flag=True,
        default=None,
        help="Encode all prompts first, and load the denoiser when the text encoders are gone.",
    ),
    click.option("--device-map", metavar="MAP", help="diffusers' placement, e.g. balanced over all GPUs."),
    click.option("--frames", type=click.IntRange(1), help="Frames of a video; by default the model's."),
    click.option("--compile", is_flag=True, default=None, help="Compile the denoiser, once for every stage size."),
    click.option(
        "--tiling/--no-tiling",
        default=None,
        help="Decode in tiles, which takes less memory; by default only what takes over 12 GiB.",
    ),
    click.option("--attention", metavar="BACKEND", help="Attention backend, as diffusers names it: flash, ..."),
)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of a model and hands them to the command as one argument, ``options``."""

    @functools.wraps(command)
    def with_options(**arguments: Any) -> Any:
        from tuner.models import ModelOptions

        chosen = {name: arguments.pop(name) for name in ModelOptions.model_fields}
        return command(options=ModelOptions(**chosen), **arguments)

    return add_options(with_options, _MODEL_OPTIONS)


def print_json(value: Any) -> None:
    """Prints plain data as JSON on stdout."""
    click.echo(json.dumps(value, indent=2))


def say(line: str) -> None:
    """Prints a sentence on stdout; in a terminal it goes on in the next line at a word's end.

    Lines that begin with a space are commands to copy and stay in one piece.
    """
    text = readable(line)
    if sys.stdout.isatty() and not text.startswith(" "):
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
    click.echo(text)


_VIEW_OPTIONS = (
    click.option("--wide", is_flag=True, help="Show every column, even beyond the terminal's width."),
    click.option(
        "--columns", metavar="NAMES", default="", help="Show these columns, with commas between, e.g. trial,clip."
    ),
    click.option("--top", type=click.IntRange(1), metavar="N", help="Show N rows alone."),
)


def view_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of what a table shows and hands them to the command as one argument, ``view``."""

    @functools.wraps(command)
    def with_view(wide: bool, columns: str, top: int | None, **arguments: Any) -> Any:
        names = tuple(name for name in columns.split(",") if name)
        return command(view=View(columns=names, top=top, wide=wide), **arguments)

    return add_options(with_view, _VIEW_OPTIONS)


def stdout_console(wide: bool = False) -> Console:
    """Makes a console on stdout that is wide enough for a table where it is no terminal, as in a pipe.

    Every string is text to it: no Rich markup, no emoji codes, and nothing that a terminal would obey.

    Args:
        wide: Whether lines may be longer than the terminal's.
    """
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(
                readable(text), **how | {"markup": False, "emoji": False, "highlight": False}
            )

    if wide:
        return Plain(width=_WIDE)
    console = Plain()
    return console if console.is_terminal or "COLUMNS" in os.environ else Plain(width=_PIPE_WIDTH)


def resume_command() -> str:
    """Returns the command line that continues what the running one does; passwords are masked."""
    given: list[str] = click.get_current_context().find_root().obj or []
    return masked(shlex.join(["tuner", *given] + ([] if "--resume" in given else ["--resume"])))


def print_table(cells: Cells, view: View | None = None) -> None:
    """Prints a table on stdout; numbers are the caller's strings, so that JSON and table never disagree.

    Args:
        cells: The table.
        view: The part of it to show; by default the columns that fit.

    Raises:
        UserError: If the view names a column that the table does not have.
    """
    view = view or View()
    console = stdout_console(view.wide)
    console.print(layout(cells, view, console.width))


def stdout_for_results() -> contextlib.AbstractContextManager[Any]:
    """Sends what libraries print to stderr: Ray tells there of a worker's death, in the midst of a result."""
    return contextlib.redirect_stdout(sys.stderr)


def print_study(result: StudyResult, view: View) -> None:
    """Prints the front of a study, its pick on unseen prompts, and whether that is as good as the baseline."""
    from studies.report.ending import pick_line, unseen_cells, verdicts, warnings
    from studies.report.tables import front_table

    console = stdout_console(view.wide)
    console.print(front_table(result, console.width, view))
    say(pick_line(result))
    if result.pick.held_out:
        header, rows = unseen_cells(result)
        print_table(Cells(header, rows, key=header))
    for line in (*verdicts(result), *([result.pick_note] if result.pick_note else []), *warnings(result)):
        say(line)
