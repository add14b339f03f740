"""``tuner models``: the models that are known by a short name, and their defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli import _completion as complete
from tuner.cli._common import json_option, print_json, print_table, view_options
from tuner.tables import Cells

if TYPE_CHECKING:
    from tuner.memory import Placement, Precision
    from tuner.models import Blueprint
    from tuner.tables import View

_EXAMPLES = """\b
Examples:
  tuner models
  tuner models --columns model,source
  tuner models flux sd3.5-large --cost
  tuner models flux wan2.2 --memory

What --memory counts, in GiB: the weights of denoiser and text encoders; the most that tensors take beside them
in a call of the denoiser for one image, and while it is decoded, at the default size (in tiles where a worker
does so by itself); and what a worker needs with all of it on the card. --json says, too, what it needs with
text encoders freed, or with offloading. Scorers and CUDA itself come on top; see docs/models.md.
"""

_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8", "nf4")
_PLACEMENTS: tuple[Placement, ...] = ("model", "group", "sequential")
_MEMORY_COLUMNS: tuple[str, ...] = ("model", "precision", "denoiser", "text", "call", "decode", "needs")
_COST_COLUMNS = ("TFLOPs per pass", "TFLOPs per image")


@click.command(help="Lists models by short name, with their baselines' defaults.\n\n" + _EXAMPLES)
@click.argument("names", nargs=-1, shell_complete=complete.models)
@click.option("--cost", is_flag=True, help="Count TFLOPs instead of naming the source; a second or so per model.")
@click.option("--memory", is_flag=True, help="Say instead what memory a worker needs, in four precisions.")
@view_options
@json_option
def command(names: tuple[str, ...], cost: bool, memory: bool, view: View, as_json: bool) -> None:
    """Prints one row per model."""
    from tuner.models import available, blueprint

    known = [blueprint(name) for name in names or available()]
    if memory:
        rows = [row for model in known for row in _memory_rows(model)]
        shown, key = [{name: _short(value) for name, value in row.items()} for row in rows], _MEMORY_COLUMNS
    else:
        shown = rows = [_row(model, cost) for model in known]
        key = ("model", *_COST_COLUMNS) if cost else ("model",)
    if as_json:
        print_json(rows)
    else:
        title = "Memory of a worker in GiB" if memory else None
        header = _header(shown)
        print_table(Cells(header, [_line(row, header) for row in shown], key=key, title=title), view)


def _row(known: Blueprint, cost: bool) -> dict[str, Any]:
    sigmas = known.baseline().stages[0].sigmas
    row: dict[str, Any] = {
        "model": known.name,
        "size": f"{known.height}x{known.width}" + ("" if known.fps is None else f"x{known.frames}"),
        "steps": known.steps,
        "passes": known.passes,
        "guidance": known.guidance,
        "text": known.text_tokens,
        "multiple": known.multiple,
        "sigmas": f"{sigmas[0]:.3g}, {sigmas[1]:.3f} to {sigmas[-2]:.3f}, 0",
    }
    if not cost:
        return row | {"source": "in this package" if Path(known.source).is_dir() else known.source}
    from tuner.flops import price, tflops_per_pass

    costs = (tflops_per_pass(known, known.size), price(known.baseline(), known).tflops)
    return row | dict(zip(_COST_COLUMNS, costs, strict=True))


def _memory_rows(known: Blueprint) -> list[dict[str, Any]]:
    """Says what a worker needs, in GiB, in every precision that a GPU runs."""
    from tuner.fits import with_tiling
    from tuner.memory import needed, weights, working
    from tuner.models import ModelOptions

    tiled = bool(with_tiling(known, ModelOptions(), known.size).tiling)
    sizes, rows = weights(known), []
    for precision in _PRECISIONS:
        beside = working(known, known.size, precision, tiled)
        parts = {
            "denoiser": sizes.denoising(precision),
            "text": sizes.encoding(precision),
            "VAE": sizes.decoding(precision),
            "call": beside.call,
            "decode": beside.decoding,
            "needs": needed(sizes, beside, precision),
            "text encoders freed": needed(sizes, beside, precision, freed=True),
        }
        for placement in _PLACEMENTS if precision in ("float32", "bfloat16") else ():
            parts[f"offload {placement}"] = needed(sizes, beside, precision, placement)
        parameters = sum(network.parameters for network in sizes.denoisers)
        gib = {name: size / 2**30 for name, size in parts.items()}
        rows.append({"model": known.name, "precision": precision, "parameters": parameters, **gib})
    return rows


def _header(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Collects the columns of all rows; some precisions cannot be offloaded."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _line(row: Mapping[str, object], header: Sequence[str]) -> list[str]:
    return [_cell(row.get(name)) for name in header]


def _short(value: object) -> object:
    return f"{value:.{2 if value < 10 else 1}f}" if isinstance(value, float) else value


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return "" if value is None else str(value)
