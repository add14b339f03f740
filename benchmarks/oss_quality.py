"""How near Optimal Stepsize comes to its teacher: ``python -m benchmarks.oss_quality`` prints three tables.

The first is the PSNR of decoded images to those of 100 steps, on captions of the ``held_out`` split, for 5 and 10
steps as in the paper's Table 6: schedules distilled on captions of the ``search`` split against plain grids, with
Euler's rule and with multistep ones. The row "OSS, chosen" is, for each number of steps, the Euler schedule of
highest mean PSNR on the search captions; "OSS, per sample" has for every held-out caption the schedule that is
best for it alone. The second table is the paper's own margin over its best fixed grid. The third is the searches'
network calls and costs. With ``--polish`` all searches are coarse-to-fine and polished.

``--brute-force`` instead measures how far the recursion is from the optimum (`benchmarks.oss_brute_force`), and
``--ceiling K`` searches the K-step grid of highest PSNR on the held-out captions themselves: about as much as a
grid can have there with Euler's rule.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize

from benchmarks.oss_brute_force import measure_exactness, report_exactness
from studies.judge.intervals import paired_score
from tuner.distill.oss import BatchedNetwork
from tuner.distill.steps import Settings, best_steps, each_best
from tuner.distill.teacher import walk
from tuner.models import FlowModel, blueprint
from tuner.sampling import sample
from tuner.schedule import Schedule, Stage
from tuner.sigmas import beta_sigmas, edm_sigmas, truncated_sigmas
from tuner.solvers import load
from tuner.tiny.scenes import captions

COUNTS = (5, 10)
BATCH = 16
HELD_OUT_SEED = 10_000
CEILING_TRIALS = 70
WHOLE = "OSS, whole table"
CHOSEN = "OSS, chosen"
PER_SAMPLE = "OSS, per sample"
MULTISTEP = ("dpmpp-2m", "unipc")
PAPER = {
    "ImageNet-64": (0.14, 0.00),
    "LSUN-Bed-256": (0.91, 1.07),
    "FFHQ-64": (1.88, 1.64),
    "MSCOCO-512": (0.67, 1.00),
}
"""By how many dB OSS-ave is ahead of the best of EDM, DDIM and FM with 5 and 10 steps, in Table 6 of the paper."""


def scheduled(sigmas: Iterable[float], solver: str = "euler") -> Schedule:
    """Makes a schedule of one stage."""
    return Schedule(stages=(Stage(sigmas=tuple(sigmas)),), solver=solver)


def grids(steps: int) -> dict[str, Schedule]:
    """The schedules that need no search."""
    shifted = {shift: truncated_sigmas(steps, shift=float(shift)) for shift in (3, 6, 9)}
    return {
        "uniform": scheduled(truncated_sigmas(steps)),
        **{f"shift {shift}": scheduled(sigmas) for shift, sigmas in shifted.items()},
        "karras": scheduled(edm_sigmas(steps)),
        "beta": scheduled(beta_sigmas(steps, concentration=0.6, shift=1.0)),
        **{f"shift {shift}, {name}": scheduled(shifted[shift], name) for name in MULTISTEP for shift in (3, 6)},
    }


def images(model: FlowModel, prompts: Sequence[str], schedules: Sequence[Schedule], first: int = 0) -> np.ndarray:
    """Samples every prompt with its own seed and decodes: (P, h, w, 3), 0 to 255.

    Args:
        model: The model.
        prompts: What to draw.
        schedules: One for all prompts, or one for each.
        first: Added to the seeds.
    """
    found = []
    size = BATCH if len(schedules) == 1 else 1
    for start in range(0, len(prompts), size):
        part = prompts[start : start + size]
        seeds = range(HELD_OUT_SEED + first + start, HELD_OUT_SEED + first + start + len(part))
        schedule = schedules[start if size == 1 else 0]
        found.append(decoded(model, sample(model, schedule, model.encode(part), seeds)))
    return np.concatenate(found)


def decoded(model: FlowModel, latents: torch.Tensor) -> np.ndarray:
    """Decodes latents: (P, h, w, 3), 0 to 255."""
    return np.stack([np.asarray(image, dtype=float) for image in model.decode(latents)])


def psnr(ours: np.ndarray, teacher: np.ndarray) -> list[float]:
    """Peak signal-to-noise ratio of each image, dB."""
    error = np.maximum(((ours - teacher) ** 2).mean(axis=(1, 2, 3)), 1e-3)
    return [float(value) for value in 10 * np.log10(255**2 / error)]


def searches(teacher_steps: int, polished: bool) -> dict[str, Settings]:
    """Names the ways of searching."""
    whole = Settings(teacher_steps=teacher_steps, batch=BATCH)
    fine = replace(whole, coarse_to_fine=True, polish=polished)
    found = {
        "OSS, mean-cost": fine,
        "OSS, mean-log": replace(fine, aggregate="mean-log"),
        "OSS, median": replace(fine, aggregate="median"),
    }
    tables = {
        WHOLE: whole,
        "OSS, x_t": replace(whole, distance="x_t"),
        **{f"OSS, {solver}": replace(whole, solver=solver) for solver in MULTISTEP},
    }
    return found if polished else tables | found


def distil(
    model: FlowModel, prompts: Sequence[str], teacher_steps: int, polished: bool, first: int
) -> dict[str, Any]:
    """Searches with each way of searching; returns schedules, costs, calls, and PSNR on the same prompts."""
    network = BatchedNetwork(model, model.encode(prompts), BATCH)
    noise = model.noise(model.blueprint.size, range(first, first + len(prompts)))
    teacher = walk(network, noise, model.blueprint.sigmas(teacher_steps, model.blueprint.size))
    target = decoded(model, teacher.x[-1])
    found: dict[str, Any] = {}
    for name, settings in searches(teacher_steps, polished).items():
        before = network.images
        results = best_steps(network, teacher, COUNTS, settings)
        taken = (network.images - before) // len(prompts)
        rule = load(settings.solver)
        found[name] = {
            "solver": settings.solver,
            "sigmas": {count: one.sigmas for count, one in results.items()},
            "cost": {count: one.cost for count, one in results.items()},
            "search_psnr": {
                count: float(np.mean(psnr(decoded(model, rule(network, noise, one.sigmas)), target)))
                for count, one in results.items()
            },
            "calls": taken,
        }
    return found


def best_for_each(
    model: FlowModel, prompts: Sequence[str], teacher_steps: int, first: int
) -> dict[int, list[Schedule]]:
    """Finds for every held-out prompt and its noise the schedules that are best for it alone."""
    seeds = range(HELD_OUT_SEED + first, HELD_OUT_SEED + first + len(prompts))
    network = BatchedNetwork(model, model.encode(prompts), BATCH)
    noise = model.noise(model.blueprint.size, seeds)
    teacher = walk(network, noise, model.blueprint.sigmas(teacher_steps, model.blueprint.size))
    found = each_best(network, teacher, COUNTS, Settings(teacher_steps=teacher_steps))
    return {count: [scheduled(sigmas) for sigmas in each] for count, each in found.items()}


def measure(search_prompts: int, prompts: int, teacher_steps: int, polished: bool, first: int) -> dict[str, Any]:
    """Runs everything; returns plain JSON types."""
    started = time.monotonic()
    model = blueprint("tiny").load("cpu", "float32")
    found = distil(model, captions("search", first + search_prompts)[first:], teacher_steps, polished, first)
    unseen = captions("held_out", first + prompts)[first:]
    each = {} if polished else best_for_each(model, unseen, teacher_steps, first)
    teacher = images(model, unseen, [model.blueprint.plain(100, model.blueprint.size)], first)

    def scored(*schedules: Schedule) -> list[float]:
        return psnr(images(model, unseen, schedules, first), teacher)

    rows, chosen = [], {}
    for count in COUNTS:
        scores = {name: scored(schedule) for name, schedule in grids(count).items()}
        by_euler = [name for name, schedule in grids(count).items() if schedule.solver == "euler"]
        best = max(by_euler, key=lambda name: float(np.mean(scores[name])))
        for name, one in found.items():
            scores[name] = scored(scheduled(one["sigmas"][count], one["solver"]))
        by_euler = [name for name, one in found.items() if one["solver"] == "euler"]
        chosen[count] = max(by_euler, key=lambda name: float(found[name]["search_psnr"][count]))
        scores[CHOSEN] = scores[chosen[count]]
        if each:
            scores[PER_SAMPLE] = scored(*each[count])
        for name, values in scores.items():
            score = paired_score(values, scores[best])
            rows.append(
                {"steps": count, "grid": name, "psnr": score.mean, "delta": score.delta, "ci95": score.ci95}
            )
    return {
        "search_prompts": search_prompts,
        "held_out_prompts": prompts,
        "first": first,
        "teacher_steps": teacher_steps,
        "chosen": chosen,
        "searches": found,
        "psnr": rows,
        "paper": PAPER,
        "seconds": round(time.monotonic() - started, 1),
    }


def ceiling(model: FlowModel, prompts: Sequence[str], steps: int) -> tuple[float, tuple[float, ...]]:
    """Finds the grid of highest mean PSNR on the prompts by the Nelder-Mead method; returns both.

    It starts from the grid of shift 4 and moves the logarithms of the step sizes, all but the last.
    """
    teacher = images(model, prompts, [model.blueprint.plain(100, model.blueprint.size)])
    logs = np.log(-np.diff(truncated_sigmas(steps, shift=4.0)))
    tried: dict[tuple[float, ...], float] = {}

    def grid(inner_logs: np.ndarray) -> tuple[float, ...]:
        sizes = np.exp([*inner_logs, logs[-1]])
        return (1.0, *(1 - np.cumsum(sizes / sizes.sum())[:-1]).tolist(), 0.0)

    def loss(inner_logs: np.ndarray) -> float:
        sigmas = grid(inner_logs)
        tried[sigmas] = float(np.mean(psnr(images(model, prompts, [scheduled(sigmas)]), teacher)))
        return -tried[sigmas]

    simplex = logs[:-1] + np.vstack([np.zeros(steps - 1), 0.3 * np.eye(steps - 1)])
    options = {"initial_simplex": simplex, "maxfev": CEILING_TRIALS}
    minimize(loss, logs[:-1], method="Nelder-Mead", options=options)
    best = max(tried, key=lambda sigmas: tried[sigmas])
    return tried[best], best


def report(result: Mapping[str, Any]) -> str:
    """Formats what ``measure`` returned."""
    lines = [f"{'':24}" + "".join(f"{count:>26} steps" for count in COUNTS)]
    for name in dict.fromkeys(row["grid"] for row in result["psnr"]):
        cells = [row for row in result["psnr"] if row["grid"] == name]
        shown = (
            f"{row['psnr']:.2f} dB {row['delta']:+.2f} [{row['ci95'][0]:+.2f}, {row['ci95'][1]:+.2f}]"
            for row in cells
        )
        lines.append(f"{name:24}" + "".join(f"{cell:>32}" for cell in shown))
    lines += ["", "Differences are to the best grid of Euler's rule, on the same noise, with 95 % intervals."]
    names = (f"{count} steps: {name}" for count, name in result["chosen"].items())
    lines += [f"{CHOSEN}, by PSNR on the search prompts: {', '.join(names)}", "", "OSS-ave in the paper:"]
    for name, margins in result["paper"].items():
        lines.append(f"{name:24}" + "".join(f"{f'{margin:+.2f}':>32}" for margin in margins))
    lines.append("")
    whole = result["searches"].get(WHOLE)
    for name, one in result["searches"].items():
        costs = []
        for count, cost in one["cost"].items():
            more = f" ({100 * (cost / whole['cost'][count] - 1):+.1f} %)" if whole else ""
            costs.append(f"{count} steps {cost:.5f}{more}")
        fewer = f" ({whole['calls'] / one['calls']:.2f}x fewer)" if whole else ""
        lines.append(f"{name:24}{one['calls']} calls{fewer}, cost: {', '.join(costs)}")
    lines.append(
        f"\n{result['search_prompts']} search prompts, {result['held_out_prompts']} held-out ones, both from "
        f"number {result['first']}, teacher of {result['teacher_steps']} steps, {result['seconds']} s"
    )
    return "\n".join(lines)


def main() -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.oss_quality", description=__doc__)
    parser.add_argument("--search-prompts", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--teacher-steps", type=int, default=100)
    parser.add_argument("--polish", action="store_true", help="coarse-to-fine, then polished")
    parser.add_argument("--first", type=int, default=0, help="number of the first caption of either split")
    parser.add_argument("--brute-force", type=int, metavar="SETS", nargs="?", const=4, help="how exact it is")
    parser.add_argument(
        "--ceiling", type=int, metavar="K", help="the best grid of K steps on the held-out captions"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    if options.teacher_steps <= max(COUNTS):
        parser.error(f"--teacher-steps must exceed {max(COUNTS)}, the most steps of a schedule")
    torch.set_grad_enabled(False)
    if options.ceiling:
        model = blueprint("tiny").load("cpu", "float32")
        best, sigmas = ceiling(model, captions("held_out", options.prompts), options.ceiling)
        result = {"steps": options.ceiling, "psnr": best, "sigmas": sigmas}
        shown = ", ".join(f"{sigma:.4f}" for sigma in sigmas)
        print(json.dumps(result) if options.json else f"{options.ceiling} steps: {best:.2f} dB with {shown}")
        return 0
    if options.brute_force:
        result = measure_exactness(blueprint("tiny").load("cpu", "float32"), options.brute_force)
        print(json.dumps(result) if options.json else report_exactness(result))
        return 0
    result = measure(options.search_prompts, options.prompts, options.teacher_steps, options.polish, options.first)
    print(json.dumps(result) if options.json else report(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
