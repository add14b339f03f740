"""Checks the settings of an evaluation and makes its plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import objectives
from studies.evaluate.contenders import contender, load_named, plain, with_plain_rivals
from studies.evaluate.settings import EvalSettings
from studies.plan.chunks import default_chunk
from studies.plan.identity import fingerprint, options_identity
from studies.plan.margins import Margin, parse_margins
from studies.plan.plan import image_seeds, makers
from studies.plan.prompts import load_prompts
from studies.plan.specs import directions_of, fidelity_objectives, objective_specs
from studies.plan.words import check_counts
from studies.work.own_options import Contender, OwnOptions, drawing_price
from studies.work.task import Task
from tuner.errors import UserError
from tuner.fits import with_tiling
from tuner.flops import Price
from tuner.models import Blueprint, Size, blueprint
from tuner.schedule import Schedule

if TYPE_CHECKING:
    from objectives.base import Direction
    from tuner.presets import Preset

LEAST = {"chunk": 1, "workers": 0, "gpus_per_worker": 0}
"""Smallest values of the numeric settings."""

_SEED_STRIDE = 10_000  # between two noise seeds of one prompt, so between prompts there is room for as many
_MOST_SEEDS = 100


@dataclass(frozen=True)
class EvalPlan:
    """A checked evaluation.

    Attributes:
        settings: As the user gave them; their options say whether the autoencoder decodes in tiles.
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

    def price(self, schedule: Schedule, own: OwnOptions | None = None) -> Price:
        """Prices a schedule on this model at this size, with options of its own if it has any."""
        return drawing_price(schedule, own, self.blueprint, self.size)

    @cached_property
    def baseline_price(self) -> Price:
        """The price of what everything is compared with."""
        return self.price(self.baseline.schedule, self.baseline.own)

    @property
    def prompts(self) -> list[str]:
        """The prompt of each image."""
        return [prompt for prompt, _ in self.images]

    @property
    def judged(self) -> dict[str, Direction]:
        """The objectives that decide whether a contender is as good: not those that compare with its images."""
        fidelity = fidelity_objectives(self.objectives)
        return {name: way for name, way in self.directions.items() if name not in fidelity}

    def tasks(self, contender: Contender, images: int) -> list[Task]:
        """Splits a contender's evaluation of the first images into units of work.

        The last unit may have more images than are asked for. Images of the first one are kept.
        """
        starts = range(0, images, self.chunk)
        parts = [self.images[start : start + self.chunk] for start in starts]
        return [
            Task(
                schedule=contender.schedule,
                own=contender.own,
                prompts=tuple(prompt for prompt, _ in part),
                seeds=tuple(seed for _, seed in part),
                size=self.size,
                keep_images=index == 0,
            )
            for index, part in enumerate(parts)
        ]

    @property
    def texts(self) -> list[tuple[str, ...]]:
        """The prompts of every unit of work."""
        return [task.prompts for task in self.tasks(self.baseline, len(self.images))]

    def image_number(self, task: Task) -> int:
        """Returns the number, from 0, of a task's first image."""
        return self.images.index((task.prompts[0], task.seeds[0]))

    @cached_property
    def made_by(self) -> dict[str, str]:
        """What makes the scores of each objective, by its ``name:weights``; see `made_by`."""
        found = makers(self.objectives, self.settings.options)
        return found | {spec: f"{found[spec]} against {self.baseline.key}" for spec in self._fidelity_to_another()}

    @cached_property
    def weights(self) -> str:
        """Fingerprint of the model."""
        return fingerprint(self.blueprint)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides a score except the schedule; a folder holds scores of one identity."""
        compared = {"baseline": self.baseline.key} if self._fidelity_to_another() else {}
        return {
            "model": self.settings.model,
            "weights": self.weights,
            "objectives": list(self.objectives),
            "size": list(self.size),
            "images": hashlib.sha256(json.dumps(self.images).encode()).hexdigest()[:16],
            **compared,
            **options_identity(self.settings.options),
        }

    def _fidelity_to_another(self) -> list[str]:
        """Returns the objectives that compare with images of a baseline that is not the model's own."""
        if self.baseline.key == self.blueprint.baseline(self.size).content_hash:
            return []
        return [spec for spec in self.objectives if objectives.describe(spec).reads == "the baseline's images"]


def make_eval_plan(settings: EvalSettings) -> EvalPlan:
    """Checks settings and makes the plan; loads no weights.

    Raises:
        UserError: If any setting is wrong.
    """
    check_counts(settings, {"seeds": 1, "seed": 0, "limit": 2, **LEAST})
    if settings.seeds > _MOST_SEEDS:
        raise UserError(f"`seeds` must be at most {_MOST_SEEDS}, but got {settings.seeds}; add prompts instead.")
    if settings.until_decided and settings.seeds > 1:
        raise UserError("`until_decided` adds prompts, each with one seed; leave `seeds` out.")
    model = blueprint(settings.model).with_options(settings.options)
    named = (*settings.presets, settings.baseline) if settings.baseline else settings.presets
    loaded = load_named(named)
    size = _size(settings, model, list(loaded.values()))
    settings = settings.model_copy(update={"options": with_tiling(model, settings.options, size)})
    specs = objective_specs(settings.objectives, model)
    directions = directions_of(specs)
    if settings.until_decided and set(fidelity_objectives(specs)) == set(directions):
        raise UserError(
            "`until_decided` compares with the baseline's scores, and each of these objectives compares with its "
            "images; add another objective, such as image_reward."
        )
    prompt_set, prompts = _prompts(settings, model)
    objectives.check_fit(specs, prompts, videos=model.frames > 1)
    found = {text: contender(text, loaded, model, settings.options, size) for text in named}
    baseline = found[settings.baseline] if settings.baseline else plain(model.steps, model, size)
    asked = [found[text] for text in settings.presets]
    contenders, rivals = with_plain_rivals(asked, baseline, model, size)
    return EvalPlan(
        settings=settings,
        blueprint=model,
        size=size,
        objectives=specs,
        directions=directions,
        margins=parse_margins(settings.margin, list(directions)),
        prompt_set=prompt_set,
        images=noise_of(prompts, settings.seeds, settings.seed),
        chunk=settings.chunk or default_chunk(model, size),
        baseline=baseline,
        contenders=contenders,
        plain_rivals=rivals,
    )


def noise_of(prompts: Sequence[str], seeds: int, seed: int) -> tuple[tuple[str, int], ...]:
    """Gives every prompt its noise seeds; more seeds or prompts leave the other seeds unchanged."""
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


def _size(settings: EvalSettings, model: Blueprint, loaded: Sequence[Preset]) -> Size:
    own = {(preset.height, preset.width): preset.name for preset in loaded if preset.model == settings.model}
    if settings.size is None and len(own) > 1:
        listed = ", ".join(f"{name} is for {height}x{width}" for (height, width), name in own.items())
        raise UserError(f"The presets are for several sizes ({listed}); choose the one to compare at with --size.")
    return model.check_size(settings.size or next(iter(own), model.size))
