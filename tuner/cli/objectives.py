"""``tuner objectives``: what images can be scored by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from tuner.cli._common import json_option, print_json, print_table, say, view_options
from tuner.tables import Cells

if TYPE_CHECKING:
    from objectives import Description
    from tuner.tables import View

_HELP = """Lists what images can be scored by, with units and licences.

\b
Examples:
  tuner objectives
  tuner objectives --columns name,default
  tuner objectives --json

\b
--objectives takes, with commas between them:
  NAME                      one of this list, with its default weights
  NAME:WEIGHTS              a folder, a file or a hub id
  NAME:WEIGHTS@bfloat16     in half precision; NAME:@bfloat16 by default
  MODULE:FUNCTION           your own (images, prompts) -> floats
  MODULE:FUNCTION:minimize  where less is better

What stands before the first colon is a name of this list, or else a module. Prompts are cut at the number of
tokens under "reads": ImageReward reads 35 and ignores the rest, as published; a warning says so when it happens.
"""


@click.command(help=_HELP)
@view_options
@json_option
def command(view: View, as_json: bool) -> None:
    """Describes every objective without loading any weights."""
    from objectives import available, describe

    found = [describe(name) for name in available()]
    if as_json:
        print_json([_row(description) for description in found])
        return
    header = ["name", "unit", "better", "range", "reads", "default weights", "their licence"]
    cells = Cells(
        header,
        [
            (
                description.name,
                description.unit,
                "more" if description.direction == "maximize" else "less",
                _range(description.about.range),
                _reads(description),
                description.about.weights or "none",
                description.about.license or "",
            )
            for description in found
        ],
        key=header[:3],
    )
    print_table(cells, view)
    for description in found:
        say(f"{description.name}: {description.summary}")


def _row(description: Description) -> dict[str, Any]:
    about = description.about
    return {
        "name": description.name,
        "summary": description.summary,
        "unit": description.unit,
        "direction": description.direction,
        "range": [bound if math.isfinite(bound) else None for bound in about.range],
        "reads": description.reads,
        "tokens": about.tokens,
        "weights": about.weights,
        "license": about.license,
        "embedded": about.embedded,
    }


def _range(bounds: tuple[float, float]) -> str:
    low, high = bounds
    if math.isinf(low) and math.isinf(high):
        return "any"
    return f"{f'{low:g}' if math.isfinite(low) else 'any'} to {f'{high:g}' if math.isfinite(high) else 'any'}"


def _reads(description: Description) -> str:
    tokens = description.about.tokens
    return description.reads if tokens is None else f"{description.reads}, {tokens} tokens"
