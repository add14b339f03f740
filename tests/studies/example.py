"""A made-up finished study, with every kind of candidate that a report shows."""

from __future__ import annotations

import numpy as np

from studies.judge.pareto import front, knee
from studies.records.results import Baseline, Candidate, Mean, Pick, StudyResult
from tuner.presets import Score
from tuner.schedule import Schedule, Stage

DIRECTIONS = {"clip": "maximize", "image_reward": "maximize"}
_STEP = 74.385
_FULL = 50 * _STEP


def candidate(
    trial: int, label: str, stages: list[tuple[float, int]], clip: float, reward: float, width: float = 0.15
) -> Candidate:
    """Stages are (scale, steps); ``clip`` and ``reward`` are the differences to the baseline."""
    tflops = sum(steps * _STEP * scale**2 for scale, steps in stages)
    return Candidate(
        trial=trial,
        label=label,
        tflops=tflops,
        speedup=_FULL / tflops,
        nfe=sum(steps for _, steps in stages),
        scores={
            "clip": Score(mean=31.25 + clip, delta=clip, ci95=(clip - width, clip + width)),
            "image_reward": Score(mean=0.5 + reward, delta=reward, ci95=(reward - width, reward + 1.3 * width)),
        },
        schedule=Schedule(
            stages=tuple(
                Stage(
                    scale=scale, steps=steps if i == 0 else 2 * steps, strength=1.0 if i == 0 else 0.5, shift=3.0
                )
                for i, (scale, steps) in enumerate(stages)
            )
        ),
    )


def study() -> StudyResult:
    """Eight steps of plain reduction, two presets, thirty searched trials."""
    rng = np.random.default_rng(0)
    plain = [candidate(i, f"plain:{n}", [(1.0, n)], -2.2 / n, -6.0 / n) for i, n in enumerate((4, 8, 12, 16))]
    presets = [
        candidate(4, "bottleneck-flux-3x", [(1.0, 6), (0.5, 16), (1.0, 5)], -0.22, -0.42),
        candidate(5, "bottleneck-flux-2x", [(1.0, 12), (0.5, 19), (1.0, 7)], -0.09, -0.3),
    ]
    searched = []
    for trial in range(6, 36):
        small, large = int(rng.integers(1, 12)), int(rng.integers(1, 10))
        cost = large + small / 4
        noise = rng.exponential(0.5)
        searched.append(
            candidate(trial, "search", [(0.5, small), (1.0, large)], -1.2 / cost - noise, -4.5 / cost - 3 * noise)
        )
    within = [c for c in (*plain, *presets, *searched) if c.tflops <= _FULL / 3]
    chosen = knee(within, DIRECTIONS)
    return StudyResult(
        study="flux-3x",
        model="flux",
        trials=36,
        elapsed_s=5432.1,
        tflops_spent=1.25e6,
        baseline=Baseline(tflops=_FULL, nfe=50, scores={"clip": Mean(mean=31.25), "image_reward": Mean(mean=0.5)}),
        front=front(within, DIRECTIONS),
        references=[presets[1]],
        evaluated=[*plain, *presets, *searched],
        pick=Pick(**dict(chosen), held_out=chosen.scores),
        preset="runs/flux-3x/pick.yaml",
    )
