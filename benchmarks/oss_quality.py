"""How near Optimal Stepsize comes to its teacher: ``python -m benchmarks.oss_quality`` prints two tables.

The first is the PSNR of decoded images to those of the 100-step teacher, on captions of the ``held_out`` split,
for 5, 10 and 20 steps: schedules distilled on captions of the ``search`` split against plain grids. The second is
what coarse-to-fine saves: network calls and cost beside those of the whole table, on the ``search`` captions. With
``--polish`` the schedules are those of coarse tables, polished, and the second table is their calls and costs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from studies.statistics import paired_score
from tuner.distill.bands import calls, everywhere
from tuner.distill.oss import BatchedNetwork
from tuner.distill.steps import Found, Settings, best_steps
from tuner.distill.table import walk
from tuner.models import FlowModel, blueprint
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage
from tuner.sigmas import beta_sigmas, edm_sigmas, truncated_sigmas
from tuner.tiny.scenes import captions

COUNTS = (5, 10, 20)
BATCH = 16
HELD_OUT_SEED = 10_000
SHARED = "OSS, coarse, one table"
ALONE = "OSS, coarse, each alone"


def grids(steps: int) -> dict[str, tuple[float, ...]]:
    """The grids that need no search."""
    shifted = {f"shift {shift}": truncated_sigmas(steps, shift=float(shift)) for shift in (3, 6, 9)}
    return {
        "uniform": truncated_sigmas(steps),
        **shifted,
        "karras": edm_sigmas(steps),
        "beta": beta_sigmas(steps, concentration=0.6, shift=1.0),
    }


def images(model: FlowModel, prompts: Sequence[str], sigmas: tuple[float, ...]) -> np.ndarray:
    """Samples every prompt with its own seed and decodes: (P, h, w, 3), 0 to 255."""
    found: list[np.ndarray] = []
    schedule = Schedule(stages=(Stage(sigmas=sigmas),))
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        seeds = range(HELD_OUT_SEED + start, HELD_OUT_SEED + start + len(part))
        latents = sample(model, schedule, model.encode(part), seeds)
        found += [np.asarray(image, dtype=float) for image in model.decode(latents)]
    return np.stack(found)


def psnr(ours: np.ndarray, teacher: np.ndarray) -> list[float]:
    """Peak signal-to-noise ratio of each image, dB."""
    error = np.maximum(((ours - teacher) ** 2).mean(axis=(1, 2, 3)), 1e-3)
    return [float(value) for value in 10 * np.log10(255**2 / error)]


def searches(teacher_steps: int, polished: bool) -> dict[str, tuple[Settings, list[Sequence[int]]]]:
    """Names the ways of searching: the settings of each and the step counts that each of its tables serves."""
    whole = Settings(teacher_steps=teacher_steps, batch=BATCH)
    thin = replace(whole, coarse_to_fine=True)
    alone: list[Sequence[int]] = [[count] for count in COUNTS]
    if polished:
        fine = replace(thin, polish=True)
        return {"OSS, polished": (fine, alone), "OSS, log, polished": (replace(fine, aggregate="mean-log"), alone)}
    return {
        "OSS": (whole, [COUNTS]),
        "OSS, median": (replace(whole, aggregate="median"), [COUNTS]),
        SHARED: (thin, [COUNTS]),
        ALONE: (thin, alone),
    }


def distil(model: FlowModel, prompts: Sequence[str], teacher_steps: int, polished: bool) -> dict[str, Any]:
    """Searches with each way of searching; returns the schedules, their costs and the network calls."""
    network = BatchedNetwork(model, model.encode(prompts), BATCH)
    noise = model.noise(model.blueprint.size, range(len(prompts)))
    teacher = walk(network, noise, model.blueprint.sigmas(teacher_steps, model.blueprint.size))
    found: dict[str, Any] = {}
    for name, (settings, runs) in searches(teacher_steps, polished).items():
        results: dict[int, Found] = {}
        taken: dict[int, int] = {}
        for counts in runs:
            before = network.images
            results |= best_steps(network, teacher, counts, settings)
            taken |= dict.fromkeys(counts, (network.images - before) // len(prompts))
        found[name] = {
            "sigmas": {count: one.sigmas for count, one in results.items()},
            "cost": {count: one.cost for count, one in results.items()},
            "calls": taken,
        }
    return found


def measure(search_prompts: int, prompts: int, teacher_steps: int, polished: bool) -> dict[str, Any]:
    """Runs everything; returns plain JSON types."""
    started = time.monotonic()
    model = blueprint("tiny").load("cpu", "float32")
    found = distil(model, captions("search", search_prompts), teacher_steps, polished)
    unseen = captions("held_out", prompts)
    teacher = images(model, unseen, model.blueprint.sigmas(100, model.blueprint.size))
    rows = []
    for count in COUNTS:
        scores = {name: psnr(images(model, unseen, sigmas), teacher) for name, sigmas in grids(count).items()}
        best = max(scores, key=lambda name: float(np.mean(scores[name])))
        for name, one in found.items():
            scores[name] = psnr(images(model, unseen, one["sigmas"][count]), teacher)
        for name, values in scores.items():
            score = paired_score(values, scores[best])
            rows.append(
                {"steps": count, "grid": name, "psnr": score.mean, "delta": score.delta, "ci95": score.ci95}
            )
    savings = [
        {
            "search": name,
            "steps": count,
            "table_calls": calls(everywhere(teacher_steps, max(COUNTS) if name == SHARED else count)),
            "calls": found[name]["calls"][count],
            "cost": found[name]["cost"][count] / found["OSS"]["cost"][count],
        }
        for name in ((ALONE, SHARED) if not polished else ())
        for count in COUNTS
    ]
    return {
        "search_prompts": search_prompts,
        "held_out_prompts": prompts,
        "teacher_steps": teacher_steps,
        "calls": {name: one["calls"] for name, one in found.items()},
        "cost": {name: one["cost"] for name, one in found.items()},
        "sigmas": {name: one["sigmas"] for name, one in found.items()},
        "psnr": rows,
        "coarse_to_fine": savings,
        "seconds": round(time.monotonic() - started, 1),
    }


def report(result: dict[str, Any]) -> str:
    """Formats what ``measure`` returned."""
    lines = [f"{'':24}" + "".join(f"{count:>26} steps" for count in COUNTS)]
    for name in dict.fromkeys(row["grid"] for row in result["psnr"]):
        cells = [row for row in result["psnr"] if row["grid"] == name]
        shown = (
            f"{row['psnr']:.2f} dB {row['delta']:+.2f} [{row['ci95'][0]:+.2f}, {row['ci95'][1]:+.2f}]"
            for row in cells
        )
        lines.append(f"{name:24}" + "".join(f"{cell:>32}" for cell in shown))
    lines += ["", "Differences are to the best grid, on the same prompts and noise, with 95 % intervals.", ""]
    for row in result["coarse_to_fine"]:
        ratio = row["table_calls"] / row["calls"]
        lines.append(
            f"{row['search']}, {row['steps']} steps: {row['calls']} calls for {row['table_calls']} of the whole "
            f"table ({ratio:.1f}x fewer), {100 * (row['cost'] - 1):+.2f} % cost"
        )
    for name, taken in result["calls"].items():
        lines.append(
            f"{name}: calls "
            + ", ".join(
                f"{count}: {number} (cost {result['cost'][name][count]:.5f})" for count, number in taken.items()
            )
        )
    lines.append(
        f"\n{result['search_prompts']} search prompts, {result['held_out_prompts']} held-out ones, "
        f"teacher of {result['teacher_steps']} steps, {result['seconds']} s"
    )
    return "\n".join(lines)


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.oss_quality", description=__doc__)
    parser.add_argument("--search-prompts", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--teacher-steps", type=int, default=100)
    parser.add_argument("--polish", action="store_true", help="only coarse tables with polished schedules")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    if options.teacher_steps <= max(COUNTS):
        parser.error(f"--teacher-steps must exceed {max(COUNTS)}, the most steps of a schedule")
    torch.set_grad_enabled(False)
    result = measure(options.search_prompts, options.prompts, options.teacher_steps, options.polish)
    print(json.dumps(result) if options.json else report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
