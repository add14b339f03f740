"""``tuner recommend``: what to run on a model today, without a search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tuner.cli import _completion as complete
from tuner.cli._common import json_option, out_option, print_json, print_table, say, view_options
from tuner.tables import Cells

if TYPE_CHECKING:
    from studies.report.recommend import Recommendation
    from tuner.tables import View

_EXAMPLES = """\b
Examples:
  tuner recommend --model flux --budget 3x
  tuner recommend --model tiny --budget 40% --out runs --json

The first row is the recommendation. A schedule that was measured on this model comes before one that was
measured on another, that before a published one, and that before fewer steps of the model's own sampler.
Presets that need a LoRA are left out.
"""


@click.command(help="Names the best schedule that is known without a search.\n\n" + _EXAMPLES)
@click.option("--model", required=True, shell_complete=complete.models, help="Short name, hub id or local folder.")
@click.option(
    "--budget", default="3x", show_default=True, help="What one image may cost: 3x, 40%, 1200T or 16nfe."
)
@out_option
@view_options
@json_option
def command(model: str, budget: str, out: str, view: View, as_json: bool) -> None:
    """Prints the best of each origin, the evidence, and the next command."""
    from studies.report.recommend import recommend

    found = recommend(model, budget, out)
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    header = ("schedule", "speedup", "difference [95 %]", "from", "on this model", "TFLOPs")
    cells = Cells(
        header,
        [(one.label, f"{one.speedup:.2f}x", *_known(one), f"{one.tflops:.4g}") for one in found],
        key=header[:4],
        prose=["schedule", "difference [95 %]"],
        title=f"Best known within {budget} on {model}",
    )
    print_table(cells, view)
    for one in found:
        say(f"{one.label}: {one.evidence}")
    say(f"next: {found[0].command}")


def _known(one: Recommendation) -> tuple[str, str, str]:
    from studies.report.numbers import difference

    differences = [f"{name} {difference(score)}" for name, score in one.scores.items()]
    measured = "measured" if one.measured_on_this_model else "not measured"
    return ", ".join(differences) or "not known", one.origin, measured
