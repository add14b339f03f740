"""``tuner models``: the models that are known by a short name, and their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli import _completion as complete
from tuner.cli._common import json_option, print_json, print_table

if TYPE_CHECKING:
    from tuner.memory import Placement, Precision
    from tuner.models import Blueprint

_EXAMPLES = """\b
Examples:
  tuner models
  tuner models flux sd3.5-large --cost
  tuner models flux wan2.2 --memory

\b
What --memory counts, in GiB: the weights of denoiser and text encoders; the most
that tensors take beside them in a call of the denoiser for one image, and while it
is decoded, at the default size; and what a worker needs with all of it on the card.
--json says, too, what it needs with text encoders freed, or with offloading.
Scorers and CUDA itself come on top; see docs/models.md.
"""

_PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8", "nf4")
_PLACEMENTS: tuple[Placement, ...] = ("model", "group", "sequential")
_MEMORY_COLUMNS = ("model", "precision", "denoiser", "text", "call", "decode", "needs")


@click.command(help="Lists models by short name, with the defaults that make up their baselines.\n\n" + _EXAMPLES)
@click.argument("names", nargs=-1, shell_complete=complete.models)
@click.option("--cost", is_flag=True, help="Count TFLOPs instead of naming the source; a second or so per model.")
@click.option("--memory", is_flag=True, help="Say instead what memory a worker needs, in four precisions.")
@json_option
def command(names: tuple[str, ...], cost: bool, memory: bool, as_json: bool) -> None:
    """Prints one row per model."""
    from tuner.models import available, blueprint

    known = [blueprint(name) for name in names or available()]
    if memory:
        rows = [row for model in known for row in _memory_rows(model)]
        shown = [{name: _short(row[name]) for name in _MEMORY_COLUMNS} for row in rows]
    else:
        shown = rows = [_row(model, cost) for model in known]
    if as_json:
        print_json(rows)
    else:
        print_table(list(shown[0]), [list(map(_cell, row.values())) for row in shown], typed=["model"])


def _row(known: Blueprint, cost: bool) -> dict[str, Any]:
    sigmas = known.baseline().stages[0].sigmas
    row: dict[str, Any] = {
        "model": known.name,
        "size": f"{known.height}x{known.width}" + ("" if known.fps is None else f"x{known.frames}"),
        "multiple": known.multiple,
        "steps": known.steps,
        "sigmas": f"{sigmas[0]:.3g}, {sigmas[1]:.3f} to {sigmas[-2]:.3f}, 0",
        "guidance": known.guidance,
        "passes": known.passes,
        "text": known.text_tokens,
    }
    if not cost:
        return row | {"source": "in this package" if Path(known.source).is_dir() else known.source}
    from tuner.flops import price, tflops_per_pass

    return row | {
        "TFLOPs per pass": tflops_per_pass(known, known.size),
        "TFLOPs per image": price(known.baseline(), known).tflops,
    }


def _memory_rows(known: Blueprint) -> list[dict[str, Any]]:
    """Says what a worker needs, in GiB, in every precision that a GPU runs."""
    from tuner.memory import needed, weights, working

    sizes, rows = weights(known), []
    for precision in _PRECISIONS:
        beside = working(known, known.size, precision)
        parts = {
            "denoiser": sizes.denoising(precision),
            "text": sizes.encoding(precision),
            "VAE": sizes.decoding(precision),
            "call": beside.call,
            "decode": beside.decoding,
            "needs": needed(sizes, beside, precision),
            "needs, text encoders freed": needed(sizes, beside, precision, freed=True),
        }
        for placement in _PLACEMENTS if precision in ("float32", "bfloat16") else ():
            parts[f"needs, offload {placement}"] = needed(sizes, beside, precision, placement)
        parameters = sum(network.parameters for network in sizes.denoisers)
        gib = {name: size / 2**30 for name, size in parts.items()}
        rows.append({"model": known.name, "precision": precision, "parameters": parameters, **gib})
    return rows


def _short(value: object) -> object:
    return f"{value:.{2 if value < 10 else 1}f}" if isinstance(value, float) else value


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return "" if value is None else str(value)
