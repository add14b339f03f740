"""``python -m objectives.tiny.training {clip,reward,samples,tune} --work DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def main() -> None:
    """Runs one stage of the training; an interrupted one continues where it stopped."""
    parser = argparse.ArgumentParser(prog="python -m objectives.tiny.training", description=main.__doc__)
    parser.add_argument("stage", choices=("clip", "reward"))
    parser.add_argument("--work", type=Path, required=True, help="folder for data, checkpoints and logs")
    parser.add_argument("--steps", type=int, default=2000, help="optimiser steps (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bank", type=int, default=12000, help="captions to render, twice each")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.stage == "clip":
        from objectives.tiny.training import clip

        clip.run(options.work, options.steps, options.seed, options.bank)
    else:
        from objectives.tiny.training import reward

        reward.run(options.work, options.steps, options.seed, options.bank)


if __name__ == "__main__":
    main()
