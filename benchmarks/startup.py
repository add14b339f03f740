"""Times how soon the command line answers, as multiples of the time that ``import torch`` takes.

Every run is a process of its own. The least wall time of several runs, made in turn, is reported, so that other
work on the machine decides little. The price is a shipped one, so nothing is counted.

    python -m benchmarks.startup --json
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

import click

_TUNER = ("-m", "tuner")
COMMANDS = {
    "import torch": ("-c", "import torch"),
    "--help": (*_TUNER, "--help"),
    "presets": (*_TUNER, "presets"),
    "flops": (*_TUNER, "flops", "--model", "flux"),
    "typo": (*_TUNER, "search", "--model", "tiny", "--budget", "3y"),
}
_UNIT = "import torch"


@click.command(help=__doc__)
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1), help="Timed runs of each.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(runs: int, as_json: bool) -> None:
    """Runs all in turn, after one run each that is not counted, and prints seconds and ratios."""
    for arguments in COMMANDS.values():
        seconds_of(arguments)
    times = [{name: seconds_of(arguments) for name, arguments in COMMANDS.items()} for _ in range(runs)]
    seconds = {name: min(turn[name] for turn in times) for name in COMMANDS}
    ratios = {name: taken / seconds[_UNIT] for name, taken in seconds.items()}
    if as_json:
        print(json.dumps({"runs": runs, "seconds": seconds, "ratios": ratios}, indent=2))
        return
    for name, ratio in ratios.items():
        print(f"{name:12} {seconds[name]:7.2f} s {ratio:7.2f}")


def seconds_of(arguments: tuple[str, ...]) -> float:
    """Times one run of this Python; its exit code may be anything, as a typo's is 2."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
