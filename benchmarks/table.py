"""A discretised space on `tiny`, with every schedule's score on every prompt: a search on it takes seconds.

One or two stages. ``raw`` asks a trial for the parameters as a person would who writes an Optuna loop, whatever
the schedule then costs. ``TableSpace`` asks for the same parameters, but only for values within the budget.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies import SearchSettings
from studies.caches import prefix_key
from studies.evaluation import ChunkResult, Task
from studies.plan import Plan
from tuner.schedule import Schedule, Stage
from tuner.sigmas import partial_sigmas, shift_sigma, truncated_sigmas

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

PATH = Path(__file__).parent / "data" / "tiny_table.npz"
OBJECTIVES = ("clip", "image_reward")
PROMPTS = 16  # that the search sees, and as many that it does not

_PLAIN = {"steps": (1, 2, 3, 4, 6, 8, 12, 16, 24), "shift": (1.0, 2.0, 4.0)}
_STAGED = {
    "scale": (0.25, 0.5, 0.75),
    "low_steps": (2, 6),
    "start": (0.5, 0.7, 0.9),
    "high_steps": (1, 2, 4, 8, 16),
    "stage_shift": (1.0, 3.0),
}


@functools.cache
def parameters() -> list[dict[str, float]]:
    """Lists every point of the raw space; two may be the same schedule, as a single step has no shift."""
    grids = ({"stages": (1,), **_PLAIN}, {"stages": (2,), **_STAGED})
    return [dict(zip(grid, values, strict=True)) for grid in grids for values in itertools.product(*grid.values())]


def schedule_of(params: Mapping[str, float]) -> Schedule:
    """Builds the schedule of a point."""
    if params["stages"] == 1:
        sigmas = truncated_sigmas(int(params["steps"]), shift=params["shift"])
        return Schedule(stages=(Stage(sigmas=sigmas),))
    shift, start = params["stage_shift"], params["start"]
    low = Stage(scale=params["scale"], sigmas=truncated_sigmas(int(params["low_steps"]), shift=shift))
    high = partial_sigmas(int(params["high_steps"]), shift_sigma(start, 1 / shift), shift)
    return Schedule(stages=(low, Stage(sigmas=(start, *high[1:]))))


def schedules() -> list[Schedule]:
    """Lists every schedule of the table once, in its order."""
    return list({schedule.content_hash: schedule for schedule in map(schedule_of, parameters())}.values())


def raw(trial: BaseTrial) -> dict[str, float]:
    """Asks a trial for a point, each parameter as an index into its ordered values."""
    stages = 1 + trial.suggest_int("stages", 0, 1)
    grid = _PLAIN if stages == 1 else _STAGED
    return {
        "stages": stages,
        **{name: values[trial.suggest_int(name, 0, len(values) - 1)] for name, values in grid.items()},
    }


class TableSpace:
    """The table's schedules within a budget, as a search space: steps beyond it are given up.

    Args:
        plan: Prices the schedules.
        within_budget: Whether they are; without it, this is the raw space.
    """

    def __init__(self, plan: Plan, within_budget: bool = True):
        self._plan = plan
        self._within_budget = within_budget

    def suggest(self, trial: BaseTrial, *_: Any) -> Schedule:
        """Takes the most steps that are affordable where the trial's own are not."""
        params = raw(trial)
        if not self._within_budget:
            return schedule_of(params)
        name, grid = ("steps", _PLAIN) if params["stages"] == 1 else ("high_steps", _STAGED)
        steps = grid[name].index(int(params[name]))
        schedule = schedule_of(params)
        while not self._plan.budget.allows(self._plan.price(schedule)):
            steps -= 1
            schedule = schedule_of(params | {name: grid[name][steps]})
        return schedule

    def params_of(self, schedule: Schedule) -> dict[str, Any]:
        """Finds the indices of a schedule of the table."""
        for params in parameters():
            if schedule_of(params) == schedule:
                grid = _PLAIN if params["stages"] == 1 else _STAGED
                return {"stages": int(params["stages"]) - 1} | {
                    name: values.index(params[name]) for name, values in grid.items()
                }
        raise ValueError("the schedule is not in the table.")


class Table:
    """Scores of every schedule on every prompt, and an executor that looks them up."""

    def __init__(self, path: Path = PATH):
        with np.load(path) as data:
            self._scores = data["scores"]  # (schedules, prompts, objectives), search prompts first
            self.about: dict[str, Any] = json.loads(str(data["about"]))
        self._rows = {content_hash: row for row, content_hash in enumerate(self.about["schedules"])}
        self._columns = {prompt: column for column, prompt in enumerate(self.about["prompts"])}

    def scores(self, schedule: Schedule, prompts: Sequence[str]) -> dict[str, list[float]]:
        """Looks up scores by objective, in the order of the prompts.

        Raises:
            KeyError: If the table does not have them.
        """
        columns = [self._columns[prompt] for prompt in prompts]
        found = self._scores[self._rows[schedule.content_hash]][columns].astype(float)
        return {name: found[:, k].tolist() for k, name in enumerate(OBJECTIVES)}


class TableExecutor:
    """Looks scores up instead of drawing images, and keeps the stages that schedules share as one worker would."""

    def __init__(self, table: Table, keep_stages: bool = True):
        self._table = table
        self._tasks: deque[Task] = deque()
        self._kept: set[Hashable] = set()
        self._keep_stages = keep_stages

    def submit(self, task: Task) -> None:
        """See `studies.executors.Executor`."""
        self._tasks.append(task)

    def next(self) -> tuple[Task, ChunkResult]:
        """See `studies.executors.Executor`."""
        task = self._tasks.popleft()
        keys = [prefix_key(task, stages) for stages in range(1, len(task.schedule.stages))]
        kept = max((n for n, key in enumerate(keys, start=1) if key in self._kept), default=0)
        if self._keep_stages:
            self._kept.update(keys)
        return task, ChunkResult(self._table.scores(task.schedule, task.prompts), kept_stages=kept)

    def close(self) -> None:
        """See `studies.executors.Executor`."""


def settings(out: str, **changes: Any) -> SearchSettings:
    """The search that the table was made for."""
    values: dict[str, Any] = {
        "model": "tiny",
        "budget": "3x",
        "out": out,
        "search_prompts": PROMPTS,
        "held_out_prompts": PROMPTS,
    }
    return SearchSettings(**(values | changes))
