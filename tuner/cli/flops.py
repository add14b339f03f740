"""``tuner flops``: what a schedule costs, without weights and without a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tuner.cli import _completion as complete
from tuner.cli._common import json_option, print_json, print_table, say, size_option
from tuner.errors import UserError
from tuner.tables import Cells

if TYPE_CHECKING:
    from tuner.presets import Preset

_EXAMPLES = """\b
Examples:
  tuner flops --model flux
  tuner flops --preset bottleneck-flux-3x      on the model it was made for
  tuner flops --model flux --preset flux-3x.yaml --size 768x1344 --json

A preset is priced with the guidance that it was made for. Whatever its guidance, the baseline is the model's own
sampler.
"""


@click.command(help="Counts the TFLOPs of a schedule, without weights or GPU.\n\n" + _EXAMPLES)
@click.option(
    "--model", shell_complete=complete.models, help="Short name, hub id or local folder; by default the preset's."
)
@click.option(
    "--preset",
    shell_complete=complete.presets,
    help="Shipped preset, YAML file or plain:N; without it, the model's baseline is priced.",
)
@size_option
@click.option("--frames", type=click.IntRange(1), help="Frames of a video; by default the model's.")
@json_option
def command(
    model: str | None, preset: str | None, size: tuple[int, int] | None, frames: int | None, as_json: bool
) -> None:
    """Prices a preset, or the baseline, and prints the cost by stage."""
    from tuner import presets
    from tuner.flops import price
    from tuner.models import ModelOptions, blueprint

    model = model or _model_of(preset)
    known = blueprint(model)
    if frames is not None:
        known = known.with_frames(frames)
    loaded = presets.load(preset, known, size) if preset else None
    if loaded and loaded.model not in (model, known.name, known.source, presets.ANY_MODEL):
        _warn_of_another_model(loaded, model)
    options = loaded.model_options if loaded and loaded.model_options else ModelOptions()
    if frames is not None:
        options = options.model_copy(update={"frames": frames})
    if options.frames is not None:
        known = known.with_frames(options.frames)
    if size is None:
        size = (loaded.height, loaded.width) if loaded and loaded.model == model else known.size
    baseline = price(known.baseline(size), known, size)
    cost = price(loaded.schedule, known.with_options(options), size) if loaded else baseline
    speedup = baseline.tflops / cost.tflops
    if as_json:
        stages = [
            {key: value for key, value in stage.items() if key != "nfe"} for stage in cost.as_dict()["stages"]
        ]
        print_json(
            {
                "model": model,
                "preset": preset,
                "height": size[0],
                "width": size[1],
                "frames": known.frames,
                "nfe": cost.nfe,
                "tflops": cost.tflops,
                "exact": cost.exact,
                "baseline_tflops": baseline.tflops,
                "speedup": speedup,
                "stages": stages,
            }
        )
        return
    header = ["stage", "size", "steps", "sigmas", "TFLOPs per step", "TFLOPs"]
    cells = Cells(
        header,
        [
            (
                str(index),
                f"{stage.height}x{stage.width}",
                str(stage.steps),
                f"{stage.sigmas[0]:.3f} to {stage.sigmas[-2]:.3f}, {stage.sigmas[-1]:.3g}",
                f"{stage.tflops_per_step:.6g}",
                f"{stage.tflops:.6g}",
            )
            for index, stage in enumerate(cost.stages, start=1)
        ],
        key=header,
        title=f"{preset or 'baseline'} on {model} at {size[0]}x{size[1]}",
    )
    print_table(cells)
    most = "" if cost.exact else "at most "
    say(
        f"{most}{cost.tflops:.6g} TFLOPs and {cost.nfe} network calls per image; the baseline takes "
        f"{baseline.tflops:.6g} TFLOPs: {speedup:.2f}x"
    )


def _model_of(preset: str | None) -> str:
    """Returns the model that a preset was made for.

    Raises:
        UserError: If there is no preset, or if it is for any model.
    """
    from tuner import presets

    made_for = None
    if preset is not None and not preset.startswith(presets.PLAIN):
        made_for = presets.load(preset).model
    if made_for is None or made_for == presets.ANY_MODEL:
        raise UserError("Say on which model, such as `tuner flops --model flux`; see `tuner models`.")
    return made_for


def _warn_of_another_model(preset: Preset, model: str) -> None:
    """Says on stderr that a preset was made for another model than the one that it is priced on."""
    lora = "; its LoRA does not fit" if preset.model_options and preset.model_options.lora else ""
    click.echo(
        f"warning: preset {preset.name!r} was made for {preset.model}, not for {model}{lora}; for its own cost, "
        f"give --model {preset.model}",
        err=True,
    )
