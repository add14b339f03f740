"""The training command; ``python -m tuner.tiny.training --help`` explains it."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from tuner.errors import UserError
from tuner.tiny import PIPELINE_FOLDER, TWO_PASS_FOLDER
from tuner.tiny.training.autoencoder import train_autoencoder
from tuner.tiny.training.denoiser import train_denoiser
from tuner.tiny.training.export import export_pipeline
from tuner.tiny.training.guidance import distil_guidance
from tuner.tiny.training.latents import SCENES, encode_scenes
from tuner.tiny.training.run import Settings, launch
from tuner.tiny.training.two_pass import train_two_pass

TRAINING = {
    "autoencoder": train_autoencoder,
    "latents": encode_scenes,
    "denoiser": train_denoiser,
    "guidance": distil_guidance,
    "two-pass": train_two_pass,
}
MINUTES = {"autoencoder": 12.0, "latents": float("inf"), "denoiser": 81.0, "guidance": 47.0, "two-pass": 22.0}
EXPORTS = {
    "export": ("guidance", PIPELINE_FOLDER, torch.float32),  # a plain load runs on a CPU exactly as trained
    "export-two-pass": ("two-pass", TWO_PASS_FOLDER, torch.float16),
}
"""Per export: the training whose denoiser it writes, where, and in which precision."""
PARTS = ("autoencoder", "latents", "denoiser", "guidance", "export", "two-pass", "export-two-pass")
"""All parts in the order in which they build on each other."""


def main(arguments: list[str] | None = None) -> int:
    """Runs one part of the training, or all of it; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tuner.tiny.training", description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "all"], help="what to run; `all` runs them in turn")
    parser.add_argument("--work", type=Path, required=True, help="folder of data, checkpoints and log.jsonl")
    parser.add_argument(
        "--minutes", type=float, help="wall-clock budget of a training (default 12, 81, 47 and 22)"
    )
    parser.add_argument("--steps", type=int, help="stop a training after so many steps")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=SCENES, help="scenes that `latents` renders and encodes")
    parser.add_argument("--folder", type=Path, help="where an export writes its pipeline (default: this package)")
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.workers < 1:
        raise UserError(f"`--workers` must be at least 1, but got {options.workers}.")
    if options.folder and options.part == "all":
        raise UserError("`--folder` names one pipeline, but `all` writes two; give it with one export.")
    for part in PARTS if options.part == "all" else [options.part]:
        if part in TRAINING:
            minutes = MINUTES[part] if options.minutes is None else options.minutes
            settings = Settings(options.work, minutes, options.steps, options.workers, options.seed)
            train = partial(encode_scenes, scenes=options.scenes) if part == "latents" else TRAINING[part]
            launch(part, settings, train)
        else:
            trained, folder, dtype = EXPORTS[part]
            export_pipeline(options.work, trained, options.folder or folder, dtype)


if __name__ == "__main__":
    sys.exit(main())
