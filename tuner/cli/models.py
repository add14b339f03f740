"""``tuner models``: the models that are known by a short name, and their defaults."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.cli import _completion as complete
from tuner.cli._common import json_option, print_json, print_table, view_options
from tuner.tables import Cells

if TYPE_CHECKING:
    from tuner.models import Blueprint
    from tuner.tables import View

_EXAMPLES = """\b
Examples:
  tuner models
  tuner models --columns model,source
  tuner models flux sd3.5-large --cost
  tuner models flux wan2.2 --memory

\b
What --memory counts is the denoiser alone. Text encoders, VAE, activations and
CUDA itself need more, which is not counted here; see docs/models.md.
"""


@click.command(help="Lists models by short name, with the defaults that make up their baselines.\n\n" + _EXAMPLES)
@click.argument("names", nargs=-1, shell_complete=complete.models)
@click.option("--cost", is_flag=True, help="Count TFLOPs instead of naming the source; a second or so per model.")
@click.option("--memory", is_flag=True, help="Count the denoiser's weights instead, in four precisions.")
@view_options
@json_option
def command(names: tuple[str, ...], cost: bool, memory: bool, view: View, as_json: bool) -> None:
    """Prints one row per model."""
    from tuner.models import available, blueprint

    known = [blueprint(name) for name in names or available()]
    rows = [_memory_row(model) if memory else _row(model, cost) for model in known]
    if as_json:
        print_json(rows)
    else:
        print_table(Cells(list(rows[0]), [list(map(_cell, row.values())) for row in rows], key=["model"]), view)


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

    return row | {
        "TFLOPs per pass": tflops_per_pass(known, known.size),
        "TFLOPs per image": price(known.baseline(), known).tflops,
    }


def _memory_row(known: Blueprint) -> dict[str, Any]:
    from tuner.memory import weights

    counted = weights(known)
    return {
        "model": known.name,
        "parameters": counted.parameters,
        "float32 GB": counted.float32_bytes / 1e9,
        "bf16 GB": counted.bf16_bytes / 1e9,
        "int8 GB": counted.int8_bytes / 1e9,
        "nf4 GB": counted.nf4_bytes / 1e9,
    }


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return "" if value is None else str(value)
