"""``tuner sample``: one image, or one video, from a preset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli import _completion as complete
from tuner.cli._common import model_options, size_option
from tuner.errors import UserError, unwritable

if TYPE_CHECKING:
    from tuner.models import Blueprint, Item, ModelOptions, Sound

_EXAMPLES = """\b
Examples:
  tuner sample runs/tiny-3x/preset.yaml "a red circle" -o circle.png
  tuner sample bottleneck-flux-3x "a red fox" --seed 7 -o fox.png
  tuner sample flux-3x.yaml "a red fox" --model ./my-flux-finetune -o fox.png
  tuner sample wan-3x.yaml "a red fox runs" --frames 49 -o fox.mp4
  tuner sample sd35-2x.yaml "a red fox" --negative-prompt blurry --guidance 5 --lora me/my-lora:0.8 -o fox.png
  tuner sample flux-3x.yaml "a red fox" --offload model --quantize nf4 -o fox.png     a GPU of 24 GB
"""


@click.command(help="Generates an image or a video with a preset.\n\n" + _EXAMPLES)
@click.argument("preset", shell_complete=complete.presets)
@click.argument("prompt")
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Image file, or .mp4."
)
@click.option("--model", help="Short name, hub id or local folder; by default the preset's own.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Noise seed.")
@size_option
@click.option("--fps", type=click.IntRange(1), help="Frames per second of a video; by default the model's.")
@click.option("--device", help="Torch device; by default the first GPU, else the CPU.")
@model_options
def command(
    preset: str,
    prompt: str,
    output: Path,
    model: str | None,
    seed: int,
    size: tuple[int, int] | None,
    fps: int | None,
    device: str | None,
    options: ModelOptions,
) -> None:
    """Loads the model, runs the preset with a progress bar and saves what it makes."""
    from rich.console import Console
    from rich.progress import Progress

    from tuner import generate, presets
    from tuner.flops import price
    from tuner.models import blueprint
    from tuner.solvers import network_calls

    loaded = presets.load(preset, blueprint(model).with_options(options) if model else None, size)
    if loaded.model_options is not None:
        options = options.model_copy(update=loaded.model_options.of_images() | options.of_images())
    known = blueprint(model or loaded.model).with_options(options)
    _check_format(output, known, fps)
    if model and model != loaded.model and size is None:
        size = known.size
    height, width = known.check_size(size or (loaded.height, loaded.width))
    schedule = loaded.schedule
    known.start(schedule.stages[0].sigmas[0])
    flow = known.load(device, options=options)
    calls = sum(
        network_calls(schedule.solver_of(index), stage.sigmas, stage.reuse)
        for index, stage in enumerate(schedule.stages)
    )
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("sampling", total=calls)
        result = generate(
            flow,
            prompt,
            loaded,
            seed,
            height,
            width,
            on_step=lambda stage, sigma: progress.advance(task),
            free_text_encoders=True,
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _write(output, result.images[0], fps or known.fps, *result.sounds)
    except OSError as error:
        raise unwritable("Output", output, error) from error
    if result.tflops is not None:
        most = price(schedule, known, (height, width)).tflops
        click.echo(f"{result.tflops:.6g} TFLOPs ran, of at most {most:.6g}", err=True)
    click.echo(str(output))


def _check_format(output: Path, known: Blueprint, fps: int | None) -> None:
    from PIL import Image

    suffix = output.suffix.lower()
    if known.fps is not None:
        if suffix != ".mp4":
            raise UserError(f"{known.name} makes videos, but output {str(output)!r} is none; end it in .mp4.")
        if known.has_sound and fps not in (None, known.fps):
            raise UserError(
                f"{known.name} draws sound for {known.fps} frames per second, not for --fps {fps}; leave it out."
            )
        return
    if fps is not None:
        raise UserError(f"{known.name} makes images, so --fps {fps} means nothing; leave it out.")
    Image.init()
    if suffix not in Image.EXTENSION:
        raise UserError(f"Output {str(output)!r} names no image format; end it in .png, .jpg or .webp.")


def _write(output: Path, item: Item, fps: int | None, sound: Sound | None = None) -> None:
    if not isinstance(item, list):
        item.save(output)
        return
    from diffusers.utils import encode_video, export_to_video

    if sound is None:
        export_to_video(item, str(output), fps=fps)
    else:
        encode_video(item, fps, str(output), audio=sound.wave_CT, audio_sample_rate=sound.rate)
