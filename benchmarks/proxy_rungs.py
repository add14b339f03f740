"""What a first rung on a cheaper proxy saves for videos: ``python -m benchmarks.proxy_rungs --json``.

The search has the prices and the references of Wan 2.1 1.3B (480x832, 81 frames, budget 3x), and the space of
`benchmarks.table`. Scores are those of `benchmarks.gaussian_video`, exact at any size and number of frames: minus
the mean distance of the coarse modes, and of all modes, to those of the data. Noise is added to the scores of
every prompt. Beside the differences between schedules it is as large as on the table of `tiny`.

The search as it is scores a schedule on half of the prompts first. With a proxy, it scores it on as many proxy
videos before that, or on one for each prompt: of 17 frames, or of half the size. Proxy results count as results
with an error, which follows from the schedules that have both (`calibrated`), and what they cost counts, the
baseline's own proxy videos included. The goal is what the search as it is has after 60 trials, on unseen prompts,
exactly. It has 90 trials; the others end where they have spent as much.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.proxy_testbed import FULL, TRIALS, Proxy, drawn_schedules, noisy, plan_of, scores_at
from benchmarks.search_efficiency import expected_front
from benchmarks.search_measure import Step, arguments, median_with_interval, spent_to_reach, volume_at, volumes
from benchmarks.table import OBJECTIVES
from studies.judge.early_stopping import Rival, Scores, estimated, is_beaten
from studies.propose.proposer import propose
from studies.propose.trial import Outcome, Trial, latest

if TYPE_CHECKING:
    from studies.propose.improvement import Array
    from tuner.flops import Price

FIRST_SEED = 8000  # nothing was ever chosen by how a search with it or a later one does
GOAL_AFTER = 60  # trials of the search as it is
MOST_TRIALS = 240  # of a search with a proxy
PROXIES = {
    "17 frames": Proxy(frames=17),
    "half the size": Proxy(side=0.5),
    "17 frames, all prompts": Proxy(frames=17, prompts=32),
    "half the size, all prompts": Proxy(side=0.5, prompts=32),
}
WITHOUT = "none"


class Search:
    """The search of one seed: proposes as `studies.engine.loop` does, and judges alike.

    Args:
        seed: Of proposals and noise.
        proxy: What the first rung scores; None for the search as it is.

    Attributes:
        trials: So far.
        spent: TFLOPs so far.
    """

    def __init__(self, seed: int, proxy: Proxy | None):
        plan = plan_of(seed)
        self._proxy, self._seed = proxy, seed
        # No full video is scored on the rung of the proxy.
        self._plan = replace(plan, rungs=(0, *plan.rungs)) if proxy else plan
        self._baseline = scores_at(FULL).exact(plan.baseline)[: plan.rungs[-1]]
        self._cached: dict[tuple[bool, bytes], int] = {}  # prompts on which a stage's latents are kept
        self._complete: list[tuple[float, Rival]] = []
        self._proxied: dict[str, tuple[Array, Array]] = {}  # mean differences to the baseline, and their errors
        self.trials: list[Trial] = []
        self.spent = plan.baseline_price.tflops * plan.rungs[-1]
        if proxy:
            self.spent += scores_at(proxy).price(plan.baseline).tflops * proxy.prompts

    def step(self) -> Step:
        """Runs the next trial."""
        seen = max(0, len(self.trials) - self._plan.settings.lag + 1)
        visible = self._calibrated(self.trials[:seen])
        trial = propose(self._plan, visible, self.trials[seen:])
        trial = replace(trial, outcome=self._judge(trial))
        self.trials.append(trial)
        front = expected_front(self._plan, latest(self._calibrated(self.trials)))
        return Step(self.spent, front)

    def _judge(self, trial: Trial) -> Outcome:
        if self._on_proxy(trial):
            return self._judge_proxy(trial)
        prompts, before = self._plan.rungs[trial.rung], self._plan.scored_before(trial.rung)
        self._spend(trial, trial.price, before, prompts)
        scores = self._scores(noisy(FULL, trial.schedule, self._seed, prompts))
        outcome = self._outcome(scores)
        if self._plan.is_last(trial.rung):
            self._complete.append((trial.cost, Rival.of(scores, self._plan.directions)))
            return replace(outcome, promotable=False)
        rivals = [rival for cost, rival in self._complete if cost <= trial.cost]
        return replace(outcome, promotable=not is_beaten(scores, rivals, self._plan.directions, looks=1))

    def _outcome(self, scores: Scores) -> Outcome:
        baseline = self._scores(self._baseline)
        means, errors = zip(*(estimated(scores[name], baseline[name]) for name in OBJECTIVES), strict=True)
        return Outcome(scores, tuple(-mean for mean in means), errors, promotable=True)

    def _judge_proxy(self, trial: Trial) -> Outcome:
        proxy = self._proxy or FULL
        bed, n = scores_at(proxy), proxy.prompts
        self._spend(trial, bed.price(trial.schedule), 0, n)
        found = noisy(proxy, trial.schedule, self._seed, n) - bed.exact(self._plan.baseline)[:n]
        self._proxied[trial.schedule.content_hash] = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(n)
        return Outcome({}, (0.0,) * len(OBJECTIVES), (0.0,) * len(OBJECTIVES), promotable=True)

    def _calibrated(self, trials: Sequence[Trial]) -> list[Trial]:
        """Gives the trials on the proxy the losses that they predict."""
        proxied = [one for one in trials if self._on_proxy(one)]
        if not proxied:
            return list(trials)
        base = self._baseline.mean(axis=0)
        full = {one.schedule.content_hash: one for one in trials if not self._on_proxy(one)}
        pairs = np.array(
            [[self._proxied[key][0], -np.array(one.result.losses) - base] for key, one in full.items()]
        ).reshape(-1, 2, len(OBJECTIVES))
        found = [self._proxied[one.schedule.content_hash] for one in proxied]
        means, errors = np.array(found).transpose(1, 0, 2)
        floor = np.median(errors, axis=0)
        fits = [calibrated(pairs[:, 0, k], pairs[:, 1, k], means[:, k], floor[k]) for k in range(len(OBJECTIVES))]
        given = {
            one.number: replace(
                one.result,
                losses=tuple(float(-base[k] - fit[0][row]) for k, fit in enumerate(fits)),
                errors=tuple(float(fit[1][row]) for fit in fits),
            )
            for row, one in enumerate(proxied)
        }
        return [replace(one, outcome=given.get(one.number, one.outcome)) for one in trials]

    def _on_proxy(self, trial: Trial) -> bool:
        return self._proxy is not None and trial.rung == 0

    def _spend(self, trial: Trial, cost: Price, before: int, prompts: int) -> None:
        """Counts what runs: all stages but those that are kept, as workers keep them."""
        on_proxy = self._on_proxy(trial)
        keys = [(on_proxy, prefix) for prefix in trial.prefixes]
        kept = [*(max(before, self._cached.get(key, 0)) for key in keys), before]
        self.spent += sum(stage.tflops * max(0, prompts - n) for stage, n in zip(cost.stages, kept, strict=True))
        self._cached.update({key: max(prompts, self._cached.get(key, 0)) for key in keys})

    def _scores(self, found: Array) -> Scores:
        return dict(zip(OBJECTIVES, found.T.tolist(), strict=True))


def calibrated(proxy: Array, full: Array, wanted: Array, floor: float) -> tuple[Array, Array]:
    """Predicts differences to the baseline from those on a proxy, and the standard errors of the predictions.

    A line through the origin, as the baseline differs from itself nowhere. Errors grow with the difference. Two
    imagined schedules say beforehand that proxy and full differences are alike up to a half.

    Args:
        proxy: Differences of n schedules on the proxy, (n,).
        full: Those of full videos, (n,).
        wanted: Differences on the proxy alone, (m,).
        floor: Differences below it are noise.
    """
    weights = 1 / (proxy**2 + floor**2)
    slope = (2 + weights @ (proxy * full)) / (2 + weights @ proxy**2)
    apart = (2 * 0.5**2 + weights @ (full - slope * proxy) ** 2) / (2 + len(proxy))
    return slope * wanted, np.sqrt(apart * (wanted**2 + floor**2))


def run(seed: int) -> dict[str, dict[str, float]]:
    """Runs everyone with one seed."""
    runs = {WITHOUT: _steps(seed, None, TRIALS, np.inf)}
    limit = runs[WITHOUT][-1].spent
    runs |= {name: _steps(seed, proxy, MOST_TRIALS, limit) for name, proxy in PROXIES.items()}
    reached = {name: volumes(steps, plan_of(0), scores_at(FULL)) for name, steps in runs.items()}
    goal, end = reached[WITHOUT][GOAL_AFTER - 1], runs[WITHOUT][GOAL_AFTER - 1].spent
    return {
        name: {
            "spent": spent_to_reach(steps, reached[name], goal),
            "volume": volume_at(steps, reached[name], end),
            "trials": len(steps),
            "baselines": spent_to_reach(steps, reached[name], goal) / plan_of(0).baseline_price.tflops,
        }
        for name, steps in runs.items()
    }


def _steps(seed: int, proxy: Proxy | None, trials: int, limit: float) -> list[Step]:
    search, steps = Search(seed, proxy), list[Step]()
    while len(steps) < trials and search.spent < limit:
        steps.append(search.step())
    return steps


def correlations() -> list[dict[str, Any]]:
    """Compares ranks by the exact means of full videos with those by a first rung, exact and as measured."""
    from scipy.stats import spearmanr

    plan, drawn = plan_of(0), drawn_schedules()
    truth = np.array([scores_at(FULL).exact(one).mean(axis=0) for one in drawn])
    rows = []
    for name, proxy in {WITHOUT: FULL, **PROXIES}.items():
        exact = np.array([scores_at(proxy).exact(one).mean(axis=0) for one in drawn])
        measured = np.array([noisy(proxy, one, 0, proxy.prompts).mean(axis=0) for one in drawn])
        prices = [scores_at(proxy).price(one).tflops / plan.price(one).tflops for one in drawn]
        rows.append(
            {
                "rung": name,
                "exact": [float(spearmanr(*pair).statistic) for pair in zip(exact.T, truth.T, strict=True)],
                "measured": [float(spearmanr(*pair).statistic) for pair in zip(measured.T, truth.T, strict=True)],
                "cost": float(np.median(prices)),
                "baseline_cost": scores_at(proxy).price(plan.baseline).tflops / plan.baseline_price.tflops,
            }
        )
    return rows


def measure(seeds: Sequence[int], processes: int) -> dict[str, Any]:
    """Runs everyone with every seed; returns plain JSON types."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(run, seeds))
    rows = []
    for name in (WITHOUT, *PROXIES):
        shares = [one[name]["spent"] / one[WITHOUT]["spent"] for one in found]
        gains = [one[name]["volume"] / one[WITHOUT]["volume"] - 1 for one in found]
        rows.append(
            {
                "first_rung": name,
                "reached": int(np.isfinite(shares).sum()),
                "share_of_spend": median_with_interval(shares),
                "gain_at_equal_spend": median_with_interval(gains),
                "spend_in_baseline_videos": median_with_interval([one[name]["baselines"] for one in found]),
                "trials": float(np.median([one[name]["trials"] for one in found])),
                "shares": [share if np.isfinite(share) else None for share in shares],
                "gains": gains,
            }
        )
    return {"seeds": list(seeds), "rows": rows}


def report(result: dict[str, Any]) -> str:
    """Formats the result as tables."""
    head = ("first rung", "reached", "share of spend", "gain at equal spend", "videos", "trials")
    lines = ["{:>28}{:>9}{:>24}{:>28}{:>8}{:>8}".format(*head)]
    for row in result["rows"]:
        share, low, high = ("never" if value is None else f"{value:.3f}" for value in row["share_of_spend"])
        gain = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*row["gain_at_equal_spend"])
        lines.append(
            f"{row['first_rung']:>28}{row['reached']:>9}{f'{share} [{low}, {high}]':>24}{gain:>28}"
            f"{row['spend_in_baseline_videos'][0] or np.inf:>8.1f}{row['trials']:>8.0f}"
        )
    lines.append(f"{'first rung':>28}{'cost':>7}{'rank correlation, exact':>26}{'as measured':>16}")
    for row in result["correlations"]:
        exact, measured = ("{:.3f}, {:.3f}".format(*row[key]) for key in ("exact", "measured"))
        lines.append(f"{row['rung']:>28}{row['cost']:>7.3f}{exact:>26}{measured:>16}")
    return "\n".join(lines)


def main() -> None:
    """Prints the comparison."""
    parser = arguments("proxy_rungs", __doc__, 20, FIRST_SEED)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    result = measure(seeds, options.processes) | {"correlations": correlations()}
    print(json.dumps(result, indent=2) if options.json else report(result))


if __name__ == "__main__":
    main()
