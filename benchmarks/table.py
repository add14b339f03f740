"""A discretised space on `tiny`, with every schedule's score on every prompt: a search on it takes seconds.

One to three stages, of growing or of high-low-high sizes. ``raw`` asks a trial for the parameters as a person
would who writes an Optuna loop, whatever the schedule then costs. ``TableSpace`` asks for the same, but only
for values within the budget.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from studies import SearchSettings
from studies.plan.plan import Plan, make_plan
from studies.work.reuse import kept_stages, opening_keys, prefix_keys
from studies.work.task import ChunkResult, Task
from tuner.schedule import Schedule, Stage
from tuner.sigmas import partial_sigmas, shift_sigma, truncated_sigmas
from tuner.tiny.descriptions import captions

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

PATH = Path(__file__).parent / "data" / "tiny_table.npz"
OBJECTIVES = ("clip", "image_reward")
SEARCH_PROMPTS = 64
HELD_OUT_PROMPTS = 256  # which the luck of a front is measured by: four times what a study has by default
DEAR_PROMPTS = 4  # search prompts that schedules beyond the budget are scored on; see ``benchmarks.make_table``
FAR_PROMPTS = 32  # search prompts that schedules far from the front are scored on
FAR_HELD_OUT = 12  # and held-out ones

_PLAIN = {"steps": (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32), "shift": (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)}
_TWO = {
    "scale1": (0.375, 0.5, 0.625, 0.75),
    "steps1": (1, 2, 4, 8),
    "start2": (0.15, 0.3, 0.5, 0.7, 0.85),
    "steps2": (1, 2, 3, 4, 6, 10, 16),
    "shift": (1.0, 3.0),
}
_THREE = {
    "scale1": (0.5, 0.75, 1.0),
    "steps1": (1, 2, 6),
    "scale2": (0.5, 0.75),
    "start2": (0.5, 0.8),
    "steps2": (1, 4),
    "start3": (0.25, 0.4, 0.7),
    "steps3": (1, 2, 4, 12),
}
_GRIDS: tuple[dict[str, tuple[float, ...]], ...] = (_PLAIN, _TWO, _THREE)
_SHIFT_OF_THREE = 3.0


@functools.cache
def parameters() -> list[dict[str, float]]:
    """Lists every point of the raw space; two may be the same schedule, as a single step has no shift."""
    return [
        {"stages": stages, **dict(zip(grid, values, strict=True))}
        for stages, grid in enumerate(_GRIDS, start=1)
        for values in itertools.product(*grid.values())
    ]


def schedule_of(params: Mapping[str, float]) -> Schedule:
    """Builds the schedule of a point."""
    return _schedule_of(tuple(params.items()))


@functools.cache
def _schedule_of(items: tuple[tuple[str, float], ...]) -> Schedule:
    params = dict(items)
    shift = params.get("shift", _SHIFT_OF_THREE)
    if params["stages"] == 1:
        return Schedule(stages=(Stage(sigmas=truncated_sigmas(int(params["steps"]), shift=shift)),))
    stages = [Stage(scale=params["scale1"], sigmas=truncated_sigmas(int(params["steps1"]), shift=shift))]
    for k in range(2, int(params["stages"]) + 1):
        start, steps = params[f"start{k}"], int(params[f"steps{k}"])
        sigmas = (start, *partial_sigmas(steps, shift_sigma(start, 1 / shift), shift)[1:])
        stages.append(Stage(scale=params.get(f"scale{k}", 1.0), sigmas=sigmas))
    return Schedule(stages=tuple(stages))


def schedules() -> list[Schedule]:
    """Lists every schedule of the raw space once, in its order."""
    return list({schedule.content_hash: schedule for schedule in map(schedule_of, parameters())}.values())


def raw(trial: BaseTrial, flat: bool = False) -> dict[str, float]:
    """Asks a trial for a point, each parameter as an index into its ordered values.

    Args:
        trial: Is asked.
        flat: Whether it is asked for the parameters of every number of stages, of which most then have no effect:
            for samplers that model only the parameters which all trials have.
    """
    stages = 1 + trial.suggest_int("stages", 0, len(_GRIDS) - 1)
    asked = {
        count: {
            name: values[trial.suggest_int(f"{count}.{name}", 0, len(values) - 1)] for name, values in grid.items()
        }
        for count, grid in enumerate(_GRIDS, start=1)
        if flat or count == stages
    }
    return {"stages": stages, **asked[stages]}


class TableSpace:
    """The table's schedules within a budget, as a search space: steps beyond it are given up.

    Args:
        plan: Prices the schedules.
        within_budget: Whether they are; without it, this is the raw space.
    """

    def __init__(self, plan: Plan, within_budget: bool = True):
        self._plan = plan
        self._within_budget = within_budget
        self._found: dict[tuple[float, ...], Schedule] = {}

    def suggest(self, trial: BaseTrial, *_: Any) -> Schedule:
        """Lowers steps of the last stage, then of the one before, where the trial's own are not affordable."""
        params = raw(trial)
        key = tuple(params.values())
        if key not in self._found:
            self._found[key] = self._affordable(params) if self._within_budget else schedule_of(params)
        return self._found[key]

    def _affordable(self, params: dict[str, float]) -> Schedule:
        grid = _GRIDS[int(params["stages"]) - 1]
        names = [name for name in reversed(grid) if name.startswith("steps")]
        while not self._plan.budget.allows(self._plan.price(schedule_of(params))):
            name = next(name for name in names if params[name] > grid[name][0])
            params = params | {name: grid[name][grid[name].index(params[name]) - 1]}
        return schedule_of(params)

    def params_of(self, schedule: Schedule) -> dict[str, Any]:
        """Finds the indices of a schedule of the raw space."""
        for params in parameters():
            if schedule_of(params) == schedule:
                count = int(params["stages"])
                return {"stages": count - 1} | {
                    f"{count}.{name}": values.index(params[name]) for name, values in _GRIDS[count - 1].items()
                }
        raise ValueError("the schedule is not in the raw space.")


class Scored(Protocol):
    """Knows, or finds out, what schedules score on prompts."""

    def scores(self, schedule: Schedule, prompts: Sequence[str]) -> dict[str, list[float]]:
        """Scores by objective, in the order of the prompts."""
        ...


class Table:
    """Scores of every schedule on every prompt, and an executor that looks them up.

    A schedule beyond the budget has been scored on a few prompts alone, and one far from the front on half of the
    search prompts and some of the held-out ones. On the others they are given the baseline's score plus their mean
    difference to the baseline where they have been scored. The former are never on a front, their means only steer
    a search that is not told the budget; the latter are on one only while a search knows little.
    """

    def __init__(self, path: Path = PATH):
        with np.load(path) as data:
            scores = data["scores"].astype(float)  # (schedules, prompts, objectives), search prompts first
            self.about: dict[str, Any] = json.loads(str(data["about"]))
        differences = scores - scores[0]  # the baseline comes first
        filled = scores[0] + np.nanmean(differences, axis=1, keepdims=True)
        self._scores = np.where(np.isnan(scores), filled, scores)
        self._rows = {content_hash: row for row, content_hash in enumerate(self.about["schedules"])}
        self._columns = {prompt: column for column, prompt in enumerate(self.about["prompts"])}

    def scores(self, schedule: Schedule, prompts: Sequence[str]) -> dict[str, list[float]]:
        """Looks up scores by objective, in the order of the prompts.

        Raises:
            KeyError: If the table does not have them.
        """
        columns = [self._columns[prompt] for prompt in prompts]
        found = self._scores[self._rows[schedule.content_hash]][columns]
        return {name: found[:, k].tolist() for k, name in enumerate(OBJECTIVES)}


class TableExecutor:
    """Looks scores up instead of drawing images, and keeps what schedules share as one worker would.

    Args:
        table: Has the scores.
        keep_stages: Whether it keeps the latents after stages.
        keep_calls: Whether it keeps the first velocities of stages.

    Attributes:
        table: Has the scores.
    """

    def __init__(self, table: Scored, keep_stages: bool = True, keep_calls: bool = True):
        self.table = table
        self._tasks: deque[Task] = deque()
        self._kept: set[Hashable] = set()
        self._keep_stages = keep_stages
        self._keep_calls = keep_calls

    def submit(self, task: Task) -> None:
        """See `studies.workers.executors.Executor`."""
        self._tasks.append(task)

    def next(self) -> tuple[Task, ChunkResult]:
        """See `studies.workers.executors.Executor`."""
        task = self._tasks.popleft()
        stages, calls = prefix_keys(task), opening_keys(task)
        kept = kept_stages(stages, self._kept)
        kept_calls = [number for number, call in enumerate(calls) if number >= kept and call in self._kept]
        self._kept.update(stages if self._keep_stages else (), calls if self._keep_calls else ())
        scores = self.table.scores(task.schedule, task.prompts)
        return task, ChunkResult(scores, kept_stages=kept, kept_calls=tuple(kept_calls))

    def close(self) -> None:
        """See `studies.workers.executors.Executor`."""


def settings(**changes: Any) -> SearchSettings:
    """The search that the table was made for."""
    values: dict[str, Any] = {
        "model": "tiny",
        "budget": "3x",
        "out": "runs",
        "search_prompts": SEARCH_PROMPTS,
    }
    return SearchSettings(**(values | changes))


def table_plan(held_out: int = HELD_OUT_PROMPTS, **changes: Any) -> Plan:
    """The plan of that search, with more held-out prompts of the same split than a study has, so many in all."""
    plan = make_plan(settings(**changes))
    return replace(plan, prompts=replace(plan.prompts, held_out=tuple(captions("held_out", held_out))))
