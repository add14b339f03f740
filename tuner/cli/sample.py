"""``tuner sample``: images, or videos, from a preset."""

from __future__ import annotations

import functools
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.cli import _completion as complete
from tuner.cli._common import model_options, size_option
from tuner.errors import UserError, unwritable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tuner.generation import Generation
    from tuner.models import Blueprint, Item, ModelOptions, Sound
    from tuner.schedule import Stage

_EXAMPLES = """\b
Examples:
  tuner sample runs/tiny-3x/preset.yaml "a red circle" -o circle.png
  tuner sample bottleneck-flux-3x "a red fox" --seed 7 -o fox.png
  tuner sample flux-3x.yaml "a fox" "a hen" --seeds 4 --compare -o all.png
  tuner sample plain:8 "a red fox" --model flux -o fox.png
  tuner sample flux-3x.yaml "a red fox" --model ./my-flux-finetune -o fox.png
  tuner sample wan-3x.yaml "a red fox runs" --frames 49 -o fox.mp4
  tuner sample sd35-2x.yaml "a red fox" --guidance 5 --lora me/my-lora:0.8 \\
      --negative-prompt blurry -o fox.png
  tuner sample flux-3x.yaml "a red fox" --quantize nf4 -o fox.png   24 GB
"""


@click.command(help="Generates an image or a video with a preset.\n\n" + _EXAMPLES)
@click.argument("preset", shell_complete=complete.presets)
@click.argument("prompts", metavar="PROMPT...", nargs=-1)
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Image file, or .mp4."
)
@click.option("--prompts", "file", metavar="FILE", help="Read more prompts: .txt, .csv, .tsv, .jsonl or .json.")
@click.option("--model", help="Short name, hub id or local folder; by default the preset's own.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Noise seed.")
@click.option(
    "--seeds",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    metavar="N",
    help="Seeds of each prompt.",
)
@click.option("--compare", is_flag=True, help="Put the baseline's image with the same noise on the left.")
@size_option
@click.option("--fps", type=click.IntRange(1), help="Frames per second of a video; by default the model's.")
@click.option("--device", help="Torch device; by default the first GPU, else the CPU.")
@model_options
def command(
    preset: str,
    prompts: tuple[str, ...],
    file: str | None,
    output: Path,
    model: str | None,
    seed: int,
    seeds: int,
    compare: bool,
    size: tuple[int, int] | None,
    fps: int | None,
    device: str | None,
    options: ModelOptions,
) -> None:
    """Loads the model, runs the preset with a progress bar and saves what it makes.

    A file of several is numbered: ``fox-000.png``.
    """
    from rich.console import Console
    from rich.progress import Progress

    from tuner import generate, presets
    from tuner.fits import check_fits, with_tiling
    from tuner.flops import price
    from tuner.models import blueprint

    loaded = presets.load(preset, blueprint(model).with_options(options) if model else None, size)
    if loaded.model_options is not None:
        options = options.model_copy(update=loaded.model_options.of_images() | options.of_images())
    known = blueprint(model or loaded.model).with_options(options)
    _check_format(output, known, fps)
    texts = _texts(prompts, file)
    if compare and known.fps is not None:
        raise UserError(f"{known.name} makes videos, and --compare puts images side by side; leave it out.")
    if model and model != loaded.model and size is None:
        size = known.size
    height, width = known.check_size(size or (loaded.height, loaded.width))
    schedule = loaded.schedule
    known.start(schedule.stages[0].sigmas[0])
    schedules = [known.baseline((height, width))] * compare + [schedule]
    drawings = list(itertools.product(texts, range(seed, seed + seeds)))
    if options.free_text_encoders and len(drawings) * len(schedules) > 1:
        raise UserError(
            "--free-text-encoders encodes text once, and several images are asked for; draw one, or use --offload."
        )
    options = with_tiling(known, options, (height, width))
    check_fits(known, options, device)
    flow = known.load(device, options=options)
    calls = [one.calls for one in schedules]
    tflops = [price(one, known, (height, width)).tflops for one in (known.baseline((height, width)), schedule)]
    for number, (prompt, noise) in enumerate(drawings):
        path = output if len(drawings) == 1 else output.with_stem(f"{output.stem}-{number:03d}")
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("sampling", total=sum(calls))
            made, seconds = [], []
            for one in schedules:
                started = time.monotonic()
                made.append(
                    generate(
                        flow,
                        prompt,
                        loaded if one is schedule else one,
                        noise,
                        height,
                        width,
                        on_step=functools.partial(_advance, progress, task),
                        free_text_encoders=len(drawings) * len(schedules) == 1,
                    )
                )
                seconds.append(time.monotonic() - started)
        _save(path, made, fps or known.fps)
        _print_cost(noise, seconds, tflops, made[-1].tflops)
        click.echo(str(path))


def _advance(progress: Progress, task: TaskID, stage: Stage, sigma: float) -> None:
    progress.advance(task)


def _texts(prompts: tuple[str, ...], file: str | None) -> list[str]:
    """Returns the prompts of the command line, then those of a file."""
    from studies.plan.prompt_files import read_prompts

    texts = [*prompts, *(read_prompts(Path(file)) if file else ())]
    if not texts:
        raise UserError("Say what to draw: give a prompt, or a file with --prompts.")
    return texts


def _save(path: Path, made: list[Generation], fps: int | None) -> None:
    """Writes an image or a video; of several images, all side by side."""
    from PIL import Image

    items = [generation.images[0] for generation in made]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(items) == 1:
            _write(path, items[0], fps, *made[0].sounds)
            return
        width, height = items[0].size
        beside = Image.new("RGB", (width * len(items), height))
        for place, item in enumerate(items):
            beside.paste(item, (place * width, 0))
        beside.save(path)
    except OSError as error:
        raise unwritable("Output", path, error) from error


def _print_cost(seed: int, seconds: list[float], tflops: list[float], ran: float | None) -> None:
    """Prints seed, seconds and speed-up; where a cache decides the cost as it runs, that of this image."""
    from studies.report.numbers import duration

    baseline, most = tflops
    took = duration(seconds[-1]) + (f" (baseline {duration(seconds[0])})" if len(seconds) > 1 else "")
    counted = "" if ran is None else f"; {ran:.6g} TFLOPs ran, of at most {most:.6g}"
    click.echo(
        f"seed {seed}: {took}, {baseline / (most if ran is None else ran):.2f}x fewer TFLOPs than the "
        f"baseline{counted}",
        err=True,
    )


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
