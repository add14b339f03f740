"""Turns the settings of an evaluation into what runs, and refuses what cannot work."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from studies.evaluate.settings import EvalSettings
from studies.evaluation import Task
from studies.identity import made_by
from studies.noninferiority import Margin, parse_margins
from studies.plan import (
    check_counts,
    default_chunk,
    directions_of,
    fingerprint,
    image_seeds,
    objective_specs,
    options_identity,
    versions,
)
from studies.prompts import load_prompts
from tuner import presets
from tuner.errors import UserError
from tuner.flops import Price, price
from tuner.models import Blueprint, Size, blueprint
from tuner.schedule import Schedule

if TYPE_CHECKING:
    from objectives.base import Direction
    from tuner.presets import Preset

LEAST = {"chunk": 1, "workers": 0, "gpus_per_worker": 0}
"""The least of the numbers that say how things run."""

_PLAIN = "plain:"
_SEED_STRIDE = 10_000  # between two noise seeds of one prompt, so between prompts there is room for as many
_MOST_SEEDS = 100


@dataclass(frozen=True)
class Contender:
    """A schedule that is evaluated, and what it is called."""

    name: str
    schedule: Schedule


@dataclass(frozen=True)
class EvalPlan:
    """A checked evaluation.

    Attributes:
        settings: As the user gave them.
        blueprint: The model.
        size: Output (height, width) in pixels.
        objectives: ``name:weights`` of each objective.
        directions: Which way each objective improves, by its plain name.
        margins: The largest loss that counts as none, by the plain name of the objective.
        prompt_set: Name of the prompt set, or of the user's file.
        images: Prompt and noise seed of each image; every prompt with its first seed comes first.
        chunk: Images per unit of work.
        baseline: What everything is compared with.
        contenders: What the user asked for, and plain steps at the same cost; without the baseline.
        plain_rivals: For contenders that are not plain themselves, the name of the plain steps at the same cost.
    """

    settings: EvalSettings
    blueprint: Blueprint
    size: Size
    objectives: tuple[str, ...]
    directions: Mapping[str, Direction]
    margins: Mapping[str, Margin]
    prompt_set: str
    images: tuple[tuple[str, int], ...]
    chunk: int
    baseline: Contender
    contenders: tuple[Contender, ...]
    plain_rivals: Mapping[str, str]

    def price(self, schedule: Schedule) -> Price:
        """Prices a schedule on this model at this size."""
        return price(schedule, self.blueprint, self.size)

    @property
    def prompts(self) -> list[str]:
        """The prompt of each image."""
        return [prompt for prompt, _ in self.images]

    def tasks(self, schedule: Schedule) -> list[Task]:
        """Splits a schedule's evaluation into units of work; the images of the first one are kept."""
        starts = range(0, len(self.images), self.chunk)
        parts = [self.images[start : start + self.chunk] for start in starts]
        return [
            Task(
                schedule=schedule,
                prompts=tuple(prompt for prompt, _ in part),
                seeds=tuple(seed for _, seed in part),
                size=self.size,
                keep_images=index == 0,
            )
            for index, part in enumerate(parts)
        ]

    def image_number(self, task: Task) -> int:
        """Returns which of all images, from 0, a task's first one is."""
        return self.images.index((task.prompts[0], task.seeds[0]))

    @cached_property
    def made_by(self) -> dict[str, str]:
        """What makes the scores of each objective, by its ``name:weights``; see `studies.identity.made_by`."""
        return {spec: made_by(spec, versions()) for spec in self.objectives}

    @cached_property
    def weights(self) -> str:
        """Fingerprint of the model."""
        return fingerprint(self.blueprint)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides a score, but the schedule; a folder holds scores of one identity."""
        return {
            "model": self.settings.model,
            "weights": self.weights,
            "objectives": list(self.objectives),
            "size": list(self.size),
            "images": hashlib.sha256(json.dumps(self.images).encode()).hexdigest()[:16],
            **options_identity(self.settings.options),
        }


def make_eval_plan(settings: EvalSettings) -> EvalPlan:
    """Checks settings and works out what they mean; loads no weights.

    Raises:
        UserError: If any setting is wrong.
    """
    check_counts(settings, {"seeds": 1, "seed": 0, "limit": 2, **LEAST})
    if settings.seeds > _MOST_SEEDS:
        raise UserError(f"`seeds` must be at most {_MOST_SEEDS}, but got {settings.seeds}; add prompts instead.")
    model = settings.options.applied(blueprint(settings.model))
    loaded = {text: presets.load(text) for text in settings.presets if not text.startswith(_PLAIN)}
    for preset in loaded.values():
        _check_options(preset, settings)
    size = _size(settings, model, list(loaded.values()))
    specs = objective_specs(settings.objectives, model)
    directions = directions_of(specs)
    prompt_set, prompts = _prompts(settings, model)
    if settings.baseline is None:
        baseline = Contender(f"{_PLAIN}{model.steps}", model.baseline(size))
    else:
        baseline = _contender(settings.baseline, model, size, None)
    asked = [_contender(text, model, size, loaded.get(text)) for text in settings.presets]
    contenders, rivals = _with_plain_rivals(asked, baseline, model, size)
    return EvalPlan(
        settings=settings,
        blueprint=model,
        size=size,
        objectives=specs,
        directions=directions,
        margins=parse_margins(settings.margin, list(directions)),
        prompt_set=prompt_set,
        images=noise_of(prompts, settings.seeds, settings.seed),
        chunk=settings.chunk or default_chunk(size),
        baseline=baseline,
        contenders=contenders,
        plain_rivals=rivals,
    )


def noise_of(prompts: Sequence[str], seeds: int, seed: int) -> tuple[tuple[str, int], ...]:
    """Gives every prompt its noise seeds; more seeds, or more prompts, leave the others as they were."""
    first = image_seeds(seed)
    return tuple(
        (prompt, first + repeat * _SEED_STRIDE + index)
        for repeat in range(seeds)
        for index, prompt in enumerate(prompts)
    )


def _prompts(settings: EvalSettings, model: Blueprint) -> tuple[str, Sequence[str]]:
    sets = load_prompts(settings.prompts, model)
    prompts = (*sets.search, *sets.held_out) if settings.all_prompts else sets.held_out
    prompts = prompts[: settings.limit]
    if len(prompts) > _SEED_STRIDE:
        raise UserError(f"{len(prompts)} prompts are more than {_SEED_STRIDE}; take fewer with --limit.")
    return f"{sets.name} ({'all' if settings.all_prompts else 'held out'})", prompts


def _check_options(preset: Preset, settings: EvalSettings) -> None:
    """Refuses a preset that was made for another guidance or LoRA than everything is evaluated with."""
    if preset.model_options is not None and preset.model_options != settings.options.of_presets():
        wanted = ", ".join(f"{name}={value!r}" for name, value in preset.model_options.of_images().items())
        raise UserError(
            f"Preset {preset.name!r} belongs to {wanted}, which all presets of one evaluation share; give the "
            "same options to `tuner eval`."
        )


def _size(settings: EvalSettings, model: Blueprint, loaded: Sequence[Preset]) -> Size:
    own = {(preset.height, preset.width): preset.name for preset in loaded if preset.model == settings.model}
    if settings.size is None and len(own) > 1:
        listed = ", ".join(f"{name} is for {height}x{width}" for (height, width), name in own.items())
        raise UserError(f"The presets are for several sizes ({listed}); choose the one to compare at with --size.")
    return model.check_size(settings.size or next(iter(own), model.size))


def _contender(text: str, model: Blueprint, size: Size, loaded: Preset | None) -> Contender:
    if not text.startswith(_PLAIN):
        preset = loaded or presets.load(text)
        return Contender(preset.name, preset.schedule)
    steps = text.removeprefix(_PLAIN)
    if not steps.isdecimal() or int(steps) < 1:
        raise UserError(f"Preset {text!r} names no number of plain steps; write {_PLAIN}12 for twelve.")
    return Contender(f"{_PLAIN}{int(steps)}", model.plain(int(steps), size))


def _with_plain_rivals(
    asked: Sequence[Contender], baseline: Contender, model: Blueprint, size: Size
) -> tuple[tuple[Contender, ...], dict[str, str]]:
    """Adds plain steps that cost as much as a contender, or the least that costs more."""
    known = {baseline.schedule.content_hash: baseline}
    for contender in asked:
        known.setdefault(contender.schedule.content_hash, contender)
    rivals = {}
    step = price(model.plain(1, size), model, size).tflops
    for contender in list(known.values()):
        steps = max(1, math.ceil(price(contender.schedule, model, size).tflops / step - 1e-9))
        plain = Contender(f"{_PLAIN}{steps}", model.plain(steps, size))
        if plain.schedule == contender.schedule or contender is baseline:
            continue
        rivals[contender.name] = known.setdefault(plain.schedule.content_hash, plain).name
    names = [contender.name for contender in known.values()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"Two different presets are named {twice!r}; change the `name` in one of the files.")
    return tuple(contender for contender in known.values() if contender is not baseline), rivals
