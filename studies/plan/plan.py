"""Checks the settings of a search and makes its plan."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias

from studies.plan.check import further_tflops, with_further
from studies.plan.chunks import default_chunk
from studies.plan.identity import fingerprint, made_by, options_identity
from studies.plan.knowledge import Knowledge, within_space
from studies.plan.margins import Margin, parse_margins
from studies.plan.prompts import PromptSets, load_prompts
from studies.plan.references import Reference, references
from studies.plan.rungs import in_random_order, rung_sizes
from studies.plan.settings import SearchSettings
from studies.plan.specs import directions_of, fidelity_objectives, objective_specs
from studies.plan.target import Target, target_of
from studies.plan.words import check_counts, check_words
from studies.work.task import Task
from tuner.budget import Budget, parse_budget
from tuner.errors import UserError
from tuner.fits import with_tiling
from tuner.flops import Price, price
from tuner.models import Blueprint, ModelOptions, Size, blueprint
from tuner.presets import PLAIN
from tuner.schedule import Schedule

if TYPE_CHECKING:
    from objectives.base import Direction
    from search_spaces import SearchSpace
    from tuner.latency import LatencyTable

Measure: TypeAlias = "Callable[[SearchSettings, Blueprint, Size], LatencyTable]"
"""Measures the latency of network calls, for a budget in seconds."""

_PACKAGES = ("tuner", "torch", "diffusers", "transformers", "optuna")
_SEED_STRIDE = 1_000_000


@dataclass(frozen=True)
class Plan:
    """A checked search.

    Attributes:
        settings: As the user gave them; their options say whether the autoencoder decodes in tiles.
        blueprint: The model.
        size: Output (height, width) in pixels.
        objectives: ``name:weights`` of each objective.
        directions: Direction in which each objective improves, by its plain name.
        prompts: The prompts of the search; a rung uses the first of them.
        margins: The largest loss that counts as none, by the plain name of the objective.
        rungs: Number of search prompts up to each rung; the last rung has all.
        chunk: Prompts per unit of work.
        baseline: The model's own default sampler.
        budget: Limits per image.
        space: The search space.
        references: Plain steps, and presets rescaled to the budget.
        target: Runtime that carries every schedule but the baseline; None for no limit.
        learnt: What earlier studies found out, which informs proposals.
    """

    settings: SearchSettings
    blueprint: Blueprint
    size: Size
    objectives: tuple[str, ...]
    directions: Mapping[str, Direction]
    prompts: PromptSets
    margins: Mapping[str, Margin]
    rungs: tuple[int, ...]
    chunk: int
    baseline: Schedule
    budget: Budget
    space: SearchSpace
    references: tuple[Reference, ...]
    target: Target | None
    learnt: tuple[Knowledge, ...] = ()

    def price(self, schedule: Schedule) -> Price:
        """Prices a schedule on this model at this size."""
        return price(schedule, self.blueprint, self.size)

    def seconds(self, price: Price) -> float | None:
        """Returns measured seconds per image; None if the budget is not in seconds."""
        return None if self.budget.time is None else self.budget.time.latency.seconds(price)

    @cached_property
    def references_in_space(self) -> list[tuple[Mapping[str, Any] | None, str]]:
        """For each reference, its parameters or None, and the content hash of what the space makes of them."""
        from optuna.trial import FixedTrial

        found: list[tuple[Mapping[str, Any] | None, str]] = []
        for schedule in (reference.schedule for reference in self.references):
            try:
                params = self.space.params_of(schedule)
                found.append((params, self.space.suggest(FixedTrial(params)).content_hash))
            except ValueError:
                found.append((None, schedule.content_hash))
        return found

    @cached_property
    def taught(self) -> list[tuple[Schedule, Schedule, Mapping[str, Any]]]:
        """The schedules of earlier studies: as they were, as this study's space makes them, their parameters."""
        found = within_space(self.learnt, self.space, self.blueprint, self.size)
        return [one for one in found if self.target is None or self.target.carries(one[1])]

    @property
    def value_directions(self) -> list[Direction]:
        """Direction in which each value of a trial improves: the objectives, then the cost."""
        return [*self.directions.values(), "minimize"]

    @cached_property
    def baseline_price(self) -> Price:
        """The price of the baseline."""
        return self.price(self.baseline)

    @property
    def image_seeds(self) -> int:
        """Noise seed of the first prompt; later prompts count up, search prompts first."""
        return image_seeds(self.settings.seed)

    @cached_property
    def fidelity(self) -> tuple[str, ...]:
        """The objectives that compare images with the baseline's, by their plain names."""
        return fidelity_objectives(self.objectives)

    def search_tasks(self, schedule: Schedule) -> list[Task]:
        """Splits a schedule's evaluation on the search prompts into units of work."""
        return self.tasks_up_to(schedule, len(self.rungs) - 1)

    def tasks_up_to(self, schedule: Schedule, rung: int) -> list[Task]:
        """Splits the evaluation on the prompts of a rung and of all lower rungs into units of work."""
        return [task for below in range(rung + 1) for task in self.rung_tasks(schedule, below)]

    def rung_tasks(self, schedule: Schedule, rung: int) -> list[Task]:
        """Splits the evaluation on the prompts that a rung adds into units of work."""
        prompts = self.prompts.search[: self.rungs[rung]]
        return self._tasks(schedule, prompts, self.scored_before(rung), self.image_seeds, keep=self.chunk)

    def scored_before(self, rung: int) -> int:
        """Returns the number of search prompts of all lower rungs."""
        return self.rungs[rung - 1] if rung else 0

    def is_last(self, rung: int) -> bool:
        """Whether a rung is the last, after which a schedule is scored on all search prompts."""
        return rung + 1 == len(self.rungs)

    def rung_tflops(self, price: Price, rung: int) -> float:
        """Returns the denoiser TFLOPs of a schedule on the prompts that a rung adds."""
        return price.tflops * (self.rungs[rung] - self.scored_before(rung))

    def held_out_tasks(self, schedule: Schedule, prompts: int = 0) -> list[Task]:
        """Splits a schedule's evaluation on the held-out prompts into units of work.

        Args:
            schedule: The schedule.
            prompts: Go on over further unseen prompts until there are at least so many, if there are.
        """
        first_seed, held_out = self.image_seeds + len(self.prompts.search), self.prompts.held_out
        tasks = self._tasks(schedule, held_out, 0, first_seed, keep=0)
        unseen = (*held_out, *self.prompts.further)
        more = self._tasks(schedule, unseen, len(held_out), first_seed, keep=0)
        return tasks + [task for task in more if task.seeds[0] - first_seed < prompts]

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The prompts of every unit of work that there may be."""
        unseen = len(self.prompts.held_out) + len(self.prompts.further)
        tasks = self.search_tasks(self.baseline) + self.held_out_tasks(self.baseline, unseen)
        return [task.prompts for task in tasks]

    def image_number(self, task: Task) -> int:
        """Returns the number, from 0, of the search prompt of a task's first image."""
        return task.seeds[0] - self.image_seeds

    def _tasks(
        self, schedule: Schedule, prompts: tuple[str, ...], first: int, first_seed: int, keep: int
    ) -> list[Task]:
        """Splits the prompts from number ``first`` on; the images of the first ``keep`` prompts are kept."""
        return [
            Task(
                schedule=schedule,
                prompts=prompts[start : start + self.chunk],
                seeds=tuple(range(first_seed + start, first_seed + min(start + self.chunk, len(prompts)))),
                size=self.size,
                keep_images=start < keep,
            )
            for start in range(first, len(prompts), self.chunk)
        ]

    @cached_property
    def made_by(self) -> dict[str, str]:
        """What makes the scores of each objective, by its ``name:weights``; see `made_by`."""
        return makers(self.objectives, self.settings.options)

    @cached_property
    def weights(self) -> str:
        """Fingerprint of the model."""
        return fingerprint(self.blueprint)

    @property
    def least_tflops(self) -> float:
        """Upper bound of the denoiser TFLOPs of the baseline, the references and the check on unseen prompts."""
        references = sum(self.price(reference.schedule).tflops for reference in self.references)
        searched = (self.baseline_price.tflops + references) * len(self.prompts.search)
        return searched + self.check_tflops

    @cached_property
    def check_tflops(self) -> float:
        """Upper bound of the denoiser TFLOPs of the check.

        On the held-out prompts run the baseline, the pick, plain steps at its cost, and the best preset. All but
        the preset go on over the further prompts.
        """
        presets = any(not reference.label.startswith(PLAIN) for reference in self.references)
        held_out = (self._further_tflops + presets * self.budget.tflops) * len(self.prompts.held_out)
        return held_out + self._further_tflops * len(self.prompts.further)

    @cached_property
    def _further_tflops(self) -> float:
        return further_tflops(self.baseline_price.tflops, self.budget.tflops, self.blueprint, self.size)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the result; a study resumes only if it is unchanged."""
        settings = self.settings
        latency = {} if self.budget.time is None else {"latency": self.budget.time.latency.as_dict()}
        return latency | {
            "tuner": versions()["tuner"],
            "model": settings.model,
            "weights": self.weights,
            "budget": settings.budget,
            "seed": settings.seed,
            "objectives": list(self.objectives),
            "space": settings.space,
            **({"for": settings.for_target} if settings.for_target else {}),
            **({"learnt": [[study.study, study.digest] for study in self.learnt]} if self.learnt else {}),
            "prompts": self.prompts.hash,
            "rungs": list(self.rungs),
            "size": list(self.size),
            "chunk": self.chunk,
            "lag": settings.lag,
            "references": [reference.schedule.content_hash for reference in self.references],
            **options_identity(settings.options),
        }


def makers(specs: Sequence[str], options: ModelOptions) -> dict[str, str]:
    """Identifies what makes the scores of each objective in this environment, with these model options."""
    conditions = versions() | options_identity(options)
    return {spec: made_by(spec, conditions) for spec in specs}


def make_plan(settings: SearchSettings, measure: Measure | None = None, space: SearchSpace | None = None) -> Plan:
    """Checks settings and makes the plan; loads no weights and starts no workers.

    Args:
        settings: As the user gave them.
        measure: Measures latencies on a worker's device; only a budget in seconds needs it.
        space: Replaces the space that the settings name, whose making counts calls of every stage size.

    Raises:
        UserError: If any setting is wrong.
    """
    import search_spaces
    from objectives import check_fit

    check_words(settings)
    least = {"trials": 0, "seed": 0, "search_prompts": 2, "held_out_prompts": 2}
    check_counts(settings, least | dict.fromkeys(("lag", "rungs", "chunk", "patience"), 1))
    check_counts(settings, {"check_prompts": 2, "check_tflops": 0})
    if settings.workers is not None and settings.workers < 0:
        raise UserError(f"`workers` must be 0 (this process) or more, but got {settings.workers}.")
    if settings.gpus_per_worker is not None and settings.gpus_per_worker < 0:
        raise UserError(f"`gpus_per_worker` must not be negative, but got {settings.gpus_per_worker}.")
    if settings.time_limit is not None and not settings.time_limit > 0:
        raise UserError(f"`time_limit` must be positive, but got {settings.time_limit}.")
    settings.options.transformer_file()  # refused here where it is not there
    model = blueprint(settings.model).with_options(settings.options)
    size = model.check_size(settings.size or model.size)
    settings = settings.model_copy(update={"options": with_tiling(model, settings.options, size)})
    target = target_of(settings, model, size)
    specs = objective_specs(settings.objectives, model)
    directions = directions_of(specs)
    prompts = load_prompts(settings.prompts, model)
    prompts = replace(
        prompts,
        search=in_random_order(prompts.search)[: settings.search_prompts],
        held_out=prompts.held_out[: settings.held_out_prompts],
        further=prompts.held_out[settings.held_out_prompts :],
    )
    check_fit(specs, (*prompts.search, *prompts.held_out), videos=model.frames > 1)
    baseline = model.baseline(size)
    measured = measure and partial(measure, settings, model, size)
    budget = parse_budget(settings.budget, price(baseline, model, size), model, size, measured)
    around = search_spaces.preset_around(settings.space)
    starts = dict.fromkeys((*settings.start, *([around] if around else [])))
    plan = Plan(
        settings=settings,
        blueprint=model,
        size=size,
        objectives=specs,
        directions=directions,
        prompts=prompts,
        margins=parse_margins(settings.margin, list(directions)),
        rungs=rung_sizes(len(prompts.search), settings.rungs),
        chunk=settings.chunk or default_chunk(model, size),
        baseline=baseline,
        budget=budget,
        space=space or search_spaces.load(settings.space, model, size, budget, target.carries if target else None),
        references=references(model, size, budget, tuple(starts), target),
        target=target,
    )
    plan = replace(plan, prompts=with_further(plan.prompts, settings, plan._further_tflops))
    if settings.max_tflops is not None and settings.max_tflops < plan.least_tflops:
        raise UserError(
            f"`max_tflops` {settings.max_tflops:g} does not pay for the baseline, the references and the check of "
            f"the pick, which take up to {plan.least_tflops:.4g} TFLOPs; raise it, or lower --search-prompts or "
            "--held-out-prompts."
        )
    return plan


def specs_of(settings: SearchSettings) -> tuple[str, ...]:
    """Returns the objectives of a search with their weights."""
    return objective_specs(settings.objectives, blueprint(settings.model))


def image_seeds(seed: int) -> int:
    """Returns the noise seed of a study's first prompt; studies with different seeds share no noise."""
    return seed * _SEED_STRIDE


def versions() -> dict[str, str]:
    """Returns the versions of the packages that decide the numbers."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}
