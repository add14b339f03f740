"""``python -m objectives.tiny.training {clip,reward} --work DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def main() -> None:
    """Trains an embedded scorer and replaces its shipped weights; an interrupted run is continued."""
    parser = argparse.ArgumentParser(
        prog="python -m objectives.tiny.training",
        description=main.__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("scorer", choices=("clip", "reward"))
    parser.add_argument("--work", type=Path, required=True, help="folder for renders, checkpoints and logs")
    parser.add_argument("--steps", type=int, default=700, help="optimiser steps")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, renders and batches")
    parser.add_argument("--renders", type=int, default=12000, help="captions to render, twice each")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.scorer == "clip":
        from objectives.tiny.training import clip

        clip.run(options.work, options.steps, options.seed, options.renders)
    else:
        from objectives.tiny.training import reward

        reward.run(options.work, options.steps, options.seed, options.renders)


if __name__ == "__main__":
    main()
