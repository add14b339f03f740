"""Times our sampling loop against the stock pipeline on the same schedule.

Both draw latents from the same text embeddings and seed with the embedded model's baseline schedule, turn by turn,
after one run each that is not counted. What is compared is the median of the process's CPU time in one thread, so
that other work on the machine does not decide; wall time is reported beside it.

    python -m benchmarks.loop_overhead --json
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import click


@click.command(help=__doc__)
@click.option("--runs", default=20, show_default=True, help="Timed runs of each.")
@click.option("--steps", default=20, show_default=True, help="Steps per run.")
@click.option("--batch", default=1, show_default=True, help="Images per run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(runs: int, steps: int, batch: int, as_json: bool) -> None:
    """Runs both in turn and prints their medians and the ratio of them."""
    import torch

    from benchmarks.stock import in_turn, stock_flux
    from tuner.models import blueprint
    from tuner.sampling import sample

    torch.set_num_threads(1)
    model: Any = blueprint("tiny").load("cpu", "float32")
    size = model.blueprint.size
    conditioning = model.encode(["red circle on plain black"] * batch)
    schedule = model.blueprint.plain(steps, size)

    def ours() -> Any:
        return sample(model, schedule, conditioning, list(range(batch)), size)

    def stock() -> Any:
        return stock_flux(model.pipe, model.blueprint, conditioning, steps, range(batch), size)

    difference = float((ours() - stock()).abs().max())
    times = in_turn({"ours": ours, "stock": stock}, _timed, runs)
    medians = {
        name: {"cpu_ms": 1e3 * statistics.median(cpu), "wall_ms": 1e3 * statistics.median(wall)}
        for name, (cpu, wall) in ((name, tuple(zip(*pairs, strict=True))) for name, pairs in times.items())
    }
    result = {
        "runs": runs,
        "steps": steps,
        "batch": batch,
        "largest_difference": difference,
        **medians,
        "ratio": medians["ours"]["cpu_ms"] / medians["stock"]["cpu_ms"],
    }
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for name, of in medians.items():
        print(f"{name:6} {of['cpu_ms']:8.1f} ms of CPU time, {of['wall_ms']:8.1f} ms of wall time")
    print(f"ratio  {result['ratio']:8.4f}; latents differ by at most {difference:.1e}")


def _timed(draw: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    draw()
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    main()
