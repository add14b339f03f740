"""``python -m objectives.tiny.training {clip,reward,tune} --work DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def main() -> None:
    """Trains the embedded scorers; an interrupted stage continues where it stopped."""
    parser = argparse.ArgumentParser(prog="python -m objectives.tiny.training", description=main.__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    for name, steps, help_text in (
        ("clip", 1200, "CLIP on renders"),
        ("reward", 1200, "the reward on spoiled renders"),
        ("tune", 300, "the shipped reward, further, on samples of the embedded denoiser"),
    ):
        stage = stages.add_parser(name, help=help_text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        stage.add_argument("--work", type=Path, required=True, help="folder for data, checkpoints and logs")
        stage.add_argument("--steps", type=int, default=steps, help="optimiser steps")
        stage.add_argument("--seed", type=int, default=0, help="seed of weights, renders and batches")
        stage.add_argument("--renders", type=int, default=12000, help="captions to render, twice each")
        stage.add_argument("--threads", type=int, default=1, help="CPU threads")
        if name == "tune":
            stage.add_argument("--samples", type=int, default=400, help="captions to sample by every schedule")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    common = (options.work, options.steps, options.seed, options.renders)
    if options.stage == "clip":
        from objectives.tiny.training import clip

        clip.run(*common)
    elif options.stage == "reward":
        from objectives.tiny.training import reward

        reward.run(*common)
    else:
        from objectives.tiny.training import tuning

        tuning.run(*common, options.samples)


if __name__ == "__main__":
    main()
