"""The same study, however it is run: ``python -m benchmarks.interruptions``.

Runs one study of `tiny` on one real Ray worker and on two, and once more in one process that is killed by SIGKILL
at random moments and resumed each time, and compares the front tables byte by byte.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def command(out: Path, workers: int, options: argparse.Namespace) -> list[str]:
    """The search as a user would type it; it resumes what is there."""
    return [
        *(sys.executable, "-c", "from tuner.cli.main import main; main()", "search", "--resume", "--json"),
        *("--model", "tiny", "--budget", "6x", "--study", "study", "--out", str(out), "--workers", str(workers)),
        *("--trials", str(options.trials), "--search-prompts", str(options.prompts), "--held-out-prompts", "4"),
    ]


def finish(out: Path, workers: int, options: argparse.Namespace) -> bytes:
    """Runs a search to its end; returns the front as ``result.json`` has it."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log").open("a") as log:
        subprocess.run(command(out, workers, options), stdout=log, stderr=log, check=True)
    result = json.loads((out / "study" / "result.json").read_text())
    return json.dumps(result["front"], indent=1).encode()


def lines(out: Path) -> int:
    """How many evaluations are on the disk."""
    scores = out / "study" / "scores.jsonl"
    return scores.read_bytes().count(b"\n") if scores.exists() else 0


def kill(out: Path, options: argparse.Namespace, after: int, delay: float) -> int | None:
    """Starts or resumes a search in this process's child and kills it.

    Args:
        out: Where its study is.
        options: What is searched.
        after: New evaluations that it may finish first.
        delay: Seconds that it may go on for after those.

    Returns:
        How many evaluations it left, or None if it was over before.
    """
    out.mkdir(parents=True, exist_ok=True)
    before = lines(out)
    with (out / "log").open("a") as log:
        driver = subprocess.Popen(command(out, 0, options), stdout=log, stderr=log)
        while driver.poll() is None and lines(out) < before + after:
            time.sleep(0.02)
        time.sleep(delay)
        if driver.poll() is not None:
            return None
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    return lines(out)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the study in every way; returns plain JSON types."""
    rng = random.Random(options.seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        tables = {f"{n} workers": finish(out / str(n), n, options) for n in (1, 2)}
        step = max(1, lines(out / "1") // (options.kills + 1))
        kills = []
        while len(kills) < options.kills:
            left = kill(out / "killed", options, rng.randint(0, step), rng.uniform(0, 2))
            if left is None:
                break
            kills.append(left)
        tables["killed"] = finish(out / "killed", 0, options)
        evaluations = lines(out / "1")
    return {
        "evaluations": evaluations,
        "front_members": len(json.loads(tables["killed"])),
        "evaluations_at_each_kill": kills,
        "identical": len(set(tables.values())) == 1,
        "seconds": round(time.monotonic() - started),
    }


def main() -> int:
    """Prints what was compared; returns 1 if the tables differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interruptions", description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    result = measure(options)
    print(json.dumps(result, indent=2))
    return int(not result["identical"])


if __name__ == "__main__":
    sys.exit(main())
