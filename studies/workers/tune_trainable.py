"""Our evaluation as a Ray Tune trainable.

One trial is one schedule. Every step scores it on another unit of prompts and reports the means so far, so that
Tune's own schedulers can stop it early::

    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch
    from studies import SearchSettings
    from studies.plan.plan import make_plan
    from studies.workers.tune_trainable import ScheduleTrainable, define_schedule

    plan = make_plan(SearchSettings(model="flux", budget="3x"))
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(ScheduleTrainable, plan=plan), {"gpu": 1}),
        tune_config=tune.TuneConfig(
            metric="image_reward",
            mode="max",
            num_samples=100,
            search_alg=OptunaSearch(define_schedule(plan), metric="image_reward", mode="max"),
            scheduler=ASHAScheduler(),
            reuse_actors=True,  # loads the model once per actor, not once per trial
        ),
    )
    results = tuner.fit()
    best = plan.space.suggest(optuna.trial.FixedTrial(results.get_best_result().config))

Ray Tune has no paired comparisons, shared noise or lag; `studies.search` has all of them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import optuna
from ray import tune

from studies.work.evaluator import Evaluator
from studies.work.task import Failure

if TYPE_CHECKING:
    from studies.plan.plan import Plan
    from studies.workers.executors import Load

_STATE = "scores.json"


def define_schedule(plan: Plan) -> Callable[[optuna.Trial], None]:
    """Makes the ``space`` of Tune's ``OptunaSearch``: it asks a trial for the parameters of a schedule."""
    return functools.partial(_define, plan)  # Tune pickles it


def _define(plan: Plan, trial: optuna.Trial) -> None:
    plan.space.suggest(trial)


class ScheduleTrainable(tune.Trainable):  # type: ignore[misc]
    """Scores the schedule that a configuration names, a unit of prompts per step.

    A configuration holds the parameters of the plan's space by their names. A step reports ``prompts`` (so far),
    the mean of each objective by its plain name, ``tflops`` and ``nfe`` per image, and ``done`` after the last
    unit. A schedule that fails (NaN, a blank image) fails its trial.
    """

    def setup(self, config: dict[str, Any], plan: Plan, load: Load | None = None) -> None:
        """Loads the model and the objectives.

        Args:
            config: Parameters of a schedule.
            plan: The search, from ``make_plan``; give it with ``tune.with_parameters``.
            load: Makes the evaluator; by default of the plan's model and objectives, on the actor's device.
        """
        self._plan = plan
        self._evaluator = load() if load else Evaluator.load(plan.settings.model, plan.objectives)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Switches to another schedule and keeps the model."""
        schedule = self._plan.space.suggest(optuna.trial.FixedTrial(new_config))
        self._price = self._plan.price(schedule)
        self._tasks = self._plan.search_tasks(schedule)
        self._scores: dict[str, list[float]] = {name: [] for name in self._plan.directions}
        self._done = 0
        return True

    def step(self) -> dict[str, Any]:
        """Scores the next unit of prompts."""
        outcome = self._evaluator.evaluate(self._tasks[self._done])
        if isinstance(outcome, Failure):
            raise RuntimeError(outcome.reason)
        for name, scores in outcome.scores.items():
            self._scores[name] += scores
        self._done += 1
        means = {name: fmean(scores) for name, scores in self._scores.items()}
        return means | {
            "prompts": sum(len(task.prompts) for task in self._tasks[: self._done]),
            "tflops": self._price.tflops,
            "nfe": self._price.nfe,
            "done": self._done == len(self._tasks),
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Saves the scores so far."""
        state = {"done": self._done, "scores": self._scores}
        (Path(checkpoint_dir) / _STATE).write_text(json.dumps(state), encoding="utf-8")

    def load_checkpoint(self, checkpoint: str) -> None:
        """Continues from the saved scores."""
        state = json.loads((Path(checkpoint) / _STATE).read_text(encoding="utf-8"))
        self._done, self._scores = state["done"], state["scores"]
