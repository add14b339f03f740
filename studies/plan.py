"""Turns settings into everything that a search needs to know before it starts, and refuses what cannot work."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.budget import Budget, parse_budget
from studies.evaluation import Task
from studies.prompts import PromptSets, load_prompts
from studies.settings import SearchSettings
from tuner import presets
from tuner.errors import UserError
from tuner.flops import Price, price, tflops_per_call
from tuner.models import Blueprint, Size, blueprint
from tuner.schedule import Schedule

if TYPE_CHECKING:
    from objectives.base import Direction
    from search_spaces import SearchSpace

_PACKAGES = ("tuner", "torch", "diffusers", "transformers", "optuna")
_SEED_STRIDE = 1_000_000
_CHUNK_PIXELS = 4 * 1024 * 1024
_LARGEST_CHUNK = 8
_HASHED_WHOLE = 256 * 1024 * 1024  # bytes; larger weights are told apart by size and both ends
_HASHED_END = 1024 * 1024


@dataclass(frozen=True)
class Reference:
    """A schedule that is evaluated before any proposal; ``label`` says where it comes from."""

    label: str
    schedule: Schedule


@dataclass(frozen=True)
class Plan:
    """A checked search.

    Attributes:
        settings: As the user gave them.
        blueprint: The model.
        size: Output (height, width) in pixels.
        objectives: ``name:weights`` of each objective.
        directions: Which way each objective improves, by its plain name.
        prompts: The prompts as they are used, cut to the numbers in the settings.
        chunk: Prompts per unit of work.
        baseline: The model's own default sampler.
        budget: Limits per image.
        space: The search space.
        references: Presets and step reductions.
    """

    settings: SearchSettings
    blueprint: Blueprint
    size: Size
    objectives: tuple[str, ...]
    directions: Mapping[str, Direction]
    prompts: PromptSets
    chunk: int
    baseline: Schedule
    budget: Budget
    space: SearchSpace
    references: tuple[Reference, ...]

    def price(self, schedule: Schedule) -> Price:
        """Prices a schedule on this model at this size."""
        return price(schedule, self.blueprint, self.size)

    @cached_property
    def baseline_price(self) -> Price:
        """The price of the baseline."""
        return self.price(self.baseline)

    @property
    def image_seeds(self) -> int:
        """Noise seed of the first prompt; the others count up, search prompts first and held-out ones after."""
        return image_seeds(self.settings.seed)

    def search_tasks(self, schedule: Schedule) -> list[Task]:
        """Splits a schedule's evaluation on the search prompts into units of work."""
        return self._tasks(schedule, self.prompts.search, self.image_seeds, keep_first=True)

    def held_out_tasks(self, schedule: Schedule) -> list[Task]:
        """Splits a schedule's evaluation on the held-out prompts into units of work."""
        first = self.image_seeds + len(self.prompts.search)
        return self._tasks(schedule, self.prompts.held_out, first, keep_first=False)

    def _tasks(self, schedule: Schedule, prompts: tuple[str, ...], first: int, keep_first: bool) -> list[Task]:
        return [
            Task(
                schedule=schedule,
                prompts=prompts[start : start + self.chunk],
                seeds=tuple(range(first + start, first + min(start + self.chunk, len(prompts)))),
                size=self.size,
                keep_images=keep_first and start == 0,
            )
            for start in range(0, len(prompts), self.chunk)
        ]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the result; a study resumes only where all of it is the same."""
        settings = self.settings
        return {
            "model": settings.model,
            "weights": fingerprint(self.blueprint),
            "budget": settings.budget,
            "seed": settings.seed,
            "objectives": list(self.objectives),
            "space": settings.space,
            "prompts": self.prompts.hash,
            "size": list(self.size),
            "chunk": self.chunk,
            "lag": settings.lag,
            "references": [reference.schedule.content_hash for reference in self.references],
        }


def make_plan(settings: SearchSettings) -> Plan:
    """Checks settings and works out what they mean; loads no weights.

    Raises:
        UserError: If any setting is wrong.
    """
    import search_spaces

    for name, least in (("trials", 0), ("seed", 0), ("search_prompts", 2), ("held_out_prompts", 2), ("lag", 1)):
        if getattr(settings, name) < least:
            raise UserError(f"`{name}` must be at least {least}, but got {getattr(settings, name)}.")
    if settings.chunk is not None and settings.chunk < 1:
        raise UserError(f"`chunk` must be at least 1, but got {settings.chunk}.")
    if settings.workers is not None and settings.workers < 0:
        raise UserError(f"`workers` must be 0 (this process) or more, but got {settings.workers}.")
    if settings.gpus_per_worker is not None and settings.gpus_per_worker < 0:
        raise UserError(f"`gpus_per_worker` must not be negative, but got {settings.gpus_per_worker}.")
    if settings.time_limit is not None and not settings.time_limit > 0:
        raise UserError(f"`time_limit` must be positive, but got {settings.time_limit}.")
    model = blueprint(settings.model)
    size = model.check_size(settings.size or model.size)
    specs = _objectives(settings, model)
    directions = _directions(specs)
    _check_pick(settings.pick, directions)
    prompts = load_prompts(settings.prompts, model)
    prompts = replace(
        prompts,
        search=prompts.search[: settings.search_prompts],
        held_out=prompts.held_out[: settings.held_out_prompts],
    )
    baseline = model.baseline(size)
    budget = parse_budget(settings.budget, price(baseline, model, size), model, size)
    check_name(settings.name)
    return Plan(
        settings=settings,
        blueprint=model,
        size=size,
        objectives=specs,
        directions=directions,
        prompts=prompts,
        chunk=settings.chunk or max(1, min(_LARGEST_CHUNK, _CHUNK_PIXELS // (size[0] * size[1]))),
        baseline=baseline,
        budget=budget,
        space=search_spaces.load(settings.space, model, size, budget),
        references=_references(model, size, budget, baseline),
    )


def image_seeds(seed: int) -> int:
    """Noise seed of the first prompt of a study with this seed; no two studies share noise by accident."""
    return seed * _SEED_STRIDE


def check_name(name: str) -> str:
    """Returns the name of a study unchanged if it can be the name of a folder.

    Raises:
        UserError: If it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise UserError(
            f"Study name {name!r} cannot name a folder; use letters, digits, '.', '_', '+' and '-', "
            "the first one a letter or a digit."
        )
    return name


def fingerprint(model: Blueprint) -> str:
    """Returns sixteen hex digits that change when a model's configuration or its local weights change."""
    digest = hashlib.sha256()
    described = [model.source, dict(model.transformer), dict(model.scheduler), model.text_tokens, model.guidance]
    folder = Path(model.source)
    digest.update(json.dumps(described[not folder.is_dir() :], sort_keys=True, default=str).encode())
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    small = sum(path.stat().st_size for path in files) <= _HASHED_WHOLE
    for path in files:
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size}".encode())
        with path.open("rb") as file:
            digest.update(file.read() if small else file.read(_HASHED_END))
            if not small and path.stat().st_size > _HASHED_END:
                file.seek(-_HASHED_END, 2)
                digest.update(file.read())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of the packages that decide the numbers."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def _objectives(settings: SearchSettings, model: Blueprint) -> tuple[str, ...]:
    """Gives the model's own scorers to the objectives that name no weights."""
    from objectives import parse

    parsed = [parse(spec) for spec in settings.objectives]
    if not parsed:
        raise UserError("A search needs at least one objective, such as clip.")
    names = [name for name, _ in parsed]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"Objective {twice!r} is given twice; scores are kept by name, so give each once.")
    chosen = [(name, weights or model.scorers) for name, weights in parsed]
    return tuple(f"{name}:{weights}" if weights else name for name, weights in chosen)


def _directions(specs: tuple[str, ...]) -> dict[str, Direction]:
    from objectives import direction, parse

    return {parse(spec)[0]: direction(spec) for spec in specs}


def _check_pick(spec: str, directions: Mapping[str, Direction]) -> None:
    accepted = ["knee", "cheapest", *(f"best:{name}" for name in directions)]
    if spec not in accepted:
        raise UserError(f"Pick {spec!r} is not one of {', '.join(accepted)}.")


def _references(model: Blueprint, size: Size, budget: Budget, baseline: Schedule) -> tuple[Reference, ...]:
    """Step reductions to the budget and to half of it, and the presets made for this kind of model."""
    affordable = int(budget.tflops / tflops_per_call(model, size) * (1 + 1e-9))
    steps = max(1, min(affordable, budget.nfe or affordable, model.steps))
    found = [Reference(f"plain-{n}", model.plain(n, size)) for n in dict.fromkeys((steps, max(1, steps // 2)))]
    for name in presets.available():
        preset = presets.load(name)
        try:
            same_kind = type(blueprint(preset.model)) is type(model)
        except UserError:
            continue  # a preset for a model that is not installed here
        if same_kind and preset.lora is None:  # without its LoRA a schedule made for one is worth nothing
            found.append(Reference(name, preset.schedule))
    unlike = {reference.schedule.content_hash: reference for reference in reversed(found)}
    unlike.pop(baseline.content_hash, None)
    return tuple(reference for reference in found if unlike.get(reference.schedule.content_hash) is reference)
