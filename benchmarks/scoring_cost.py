"""Where the time of a search goes: ``python -m benchmarks.scoring_cost``.

A search on ``tiny``, as a user starts it but in one process, and the seconds that its evaluations spent in
sampling, decoding and scoring, as the study itself records them. A busy machine changes the seconds much more
than their shares. The bar: scoring takes at most a fifth.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from studies import SearchSettings, search

BAR = 0.2


def split_of(scores: Path) -> dict[str, float]:
    """Adds up the seconds of all finished tasks in a study's ``scores.jsonl``."""
    seconds: Counter[str] = Counter()
    for line in scores.read_text(encoding="utf-8").splitlines():
        seconds.update(json.loads(line).get("seconds", {}))
    return dict(seconds)


def main() -> None:
    """Prints the split of one search."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring_cost", description=main.__doc__)
    parser.add_argument("--budget", default="3x", help="budget of the search (default: 3x)")
    parser.add_argument("--trials", type=int, default=8, help="schedules to propose (default: 8)")
    parser.add_argument(
        "--prompts", type=int, default=16, help="search prompts and held-out prompts (default: 16)"
    )
    parser.add_argument(
        "--objectives", default="clip,image_reward", help="with commas (default: clip,image_reward)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        settings = SearchSettings(
            model="tiny",
            budget=options.budget,
            trials=options.trials,
            objectives=tuple(options.objectives.split(",")),
            search_prompts=options.prompts,
            held_out_prompts=options.prompts,
            workers=0,
            out=folder,
        )
        search(settings)
        seconds = split_of(Path(folder) / settings.name / "scores.jsonl")
    total = sum(seconds.values())
    shares = {name: spent / total for name, spent in seconds.items()}
    if options.json:
        json.dump({"seconds": seconds, "shares": shares, "bar": BAR, "met": shares["scoring"] <= BAR}, sys.stdout)
        return
    for name, spent in seconds.items():
        print(f"{name:10} {spent:8.1f} s {100 * shares[name]:5.1f} %")
    print(f"scoring takes at most {100 * BAR:.0f} %: {'yes' if shares['scoring'] <= BAR else 'no'}")


if __name__ == "__main__":
    main()
