"""``tuner eval --verify``: runs again what a preset's provenance says and tells whether its scores hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from studies.evaluate.plan import LEAST, EvalPlan
from studies.evaluate.run import OnUnit, Scores, compare, open_folder, run
from studies.evaluate.settings import EvalSettings
from studies.plan.chunks import default_chunk
from studies.plan.plan import versions
from studies.plan.prompts import PromptSets, load_prompts
from studies.plan.rungs import in_random_order
from studies.plan.specs import directions_of
from studies.plan.words import check_counts
from studies.work.own_options import Contender
from studies.work.task import Failure
from tuner import presets
from tuner.errors import UserError
from tuner.fits import with_tiling
from tuner.models import OF_MACHINES, Blueprint, ModelOptions, blueprint
from tuner.presets import Preset, Provenance, Score

if TYPE_CHECKING:
    from studies.workers.executors import Executor

Verdict = Literal["exact", "within the interval", "different"]


class Check(BaseModel):
    """A recorded score and what it is now.

    Attributes:
        objective: Its plain name.
        prompts: ``held-out`` or ``search``.
        recorded: As the preset has it.
        measured: As it is now.
        verdict: How they compare.
    """

    model_config = ConfigDict(frozen=True)

    objective: str
    prompts: Literal["held-out", "search"]
    recorded: Score
    measured: Score
    verdict: Verdict


class Verification(BaseModel):
    """Whether a preset's recorded scores hold.

    Attributes:
        preset: Its name.
        exact_expected: Whether nothing may differ: the versions are those of the provenance, and both this
            machine and the study used a CPU.
        other_versions: Packages that differ, as "then, now".
        checks: Every recorded score.
    """

    model_config = ConfigDict(frozen=True)

    preset: str
    exact_expected: bool
    other_versions: dict[str, str]
    checks: list[Check]

    @property
    def holds(self) -> bool:
        """Whether every score is exactly what was recorded or, where that cannot be, within its interval."""
        accepted = {"exact"} if self.exact_expected else {"exact", "within the interval"}
        return all(check.verdict in accepted for check in self.checks)


def verify(
    path: str | os.PathLike[str],
    settings: EvalSettings,
    *,
    on_progress: OnUnit | None = None,
    executor: Executor | None = None,
) -> Verification:
    """Draws and scores a preset and its baseline as its provenance says, and compares with what it records.

    Args:
        path: The preset's file.
        settings: Where to run and keep things; ``prompts``: the file of the search, unless it was a shipped set;
            and of ``options`` those that no preset names. Model, size, objectives, prompts and noise are the
            preset's.
        on_progress: Called whenever a unit of work has come back.
        executor: As in `studies.evaluate.evaluate`.

    Raises:
        UserError: If the preset records no scores, or if its prompts cannot be found again.
        RuntimeError: If the preset or the baseline fails.
    """
    check_counts(settings, LEAST)
    preset = presets.load(path)
    provenance = preset.provenance
    if provenance is None or not (preset.scores or preset.search_scores):
        raise UserError(
            f"Preset {preset.name!r} records no scores with their provenance, so there is nothing to verify; "
            "`tuner export` writes presets that do."
        )
    machine = settings.options.model_dump(include=set(OF_MACHINES))
    machine["dtype"] = machine["dtype"] or _unusual_dtype(provenance, settings)
    options = (preset.model_options or ModelOptions()).model_copy(update=machine)
    model = blueprint(preset.model).with_options(options)
    options = with_tiling(model, options, (preset.height, preset.width))
    sets = _find_prompts(preset, provenance, _as_searched(load_prompts(settings.prompts, model)))
    settings = settings.model_copy(update={"model": preset.model, "options": options, "presets": (preset.name,)})
    plan = _plan(preset, provenance, sets, model, settings)
    folder = open_folder(plan, "verify")
    with folder.lock():
        outcomes = run(plan, folder, on_progress, executor).scores
    mine, other = (
        _succeeded(contender, outcomes[contender.key]) for contender in (*plan.contenders, plan.baseline)
    )
    now = versions()
    changed = {
        name: f"{then}, now {now.get(name)}" for name, then in provenance.versions.items() if now.get(name) != then
    }
    return Verification(
        preset=preset.name,
        exact_expected=not changed and provenance.device != "cuda" and _on_cpu(settings),
        other_versions=changed,
        checks=_checks(preset, sets, mine, other),
    )


def _as_searched(sets: PromptSets) -> PromptSets:
    """Puts the search prompts into the order from which a search takes the first."""
    return replace(sets, search=in_random_order(sets.search))


def _find_prompts(preset: Preset, provenance: Provenance, sets: PromptSets) -> PromptSets:
    """Cuts a prompt set to what the provenance's hash is of; the split between its halves is tried out."""
    total = provenance.prompts
    for count in range(max(0, total - len(sets.held_out)), min(total, len(sets.search)) + 1):
        cut = PromptSets(sets.search[:count], sets.held_out[: total - count], sets.name)
        if cut.hash == provenance.prompts_hash:
            return cut
    raise UserError(
        f"Preset {preset.name!r} was scored on {total} prompts with the hash {provenance.prompts_hash}, which no "
        f"part of {sets.name!r} has; give the file that the search was run with, as it was, with --prompts."
    )


def _plan(
    preset: Preset, provenance: Provenance, sets: PromptSets, model: Blueprint, settings: EvalSettings
) -> EvalPlan:
    size = model.check_size((preset.height, preset.width))
    prompts = (*sets.search, *sets.held_out)
    baseline = Contender("baseline", model.baseline(size))
    return EvalPlan(
        settings=settings,
        blueprint=model,
        size=size,
        objectives=provenance.objectives,
        directions=directions_of(provenance.objectives),
        margins={},
        prompt_set=sets.name,
        images=tuple((prompt, provenance.image_seeds + index) for index, prompt in enumerate(prompts)),
        chunk=settings.chunk or default_chunk(model, size),
        baseline=baseline,
        contenders=(Contender(preset.name, preset.schedule),),
        plain_rivals={},
    )


def _succeeded(contender: Contender, outcome: Scores | Failure) -> Scores:
    if isinstance(outcome, Failure):
        raise RuntimeError(f"{contender.name!r} failed: {outcome.reason}")
    return outcome


def _unusual_dtype(provenance: Provenance, settings: EvalSettings) -> Any:
    """Returns the precision of the search where this machine would choose another one by itself."""
    device = "cpu" if _on_cpu(settings) else "cuda"
    usual = ModelOptions().runtime(device) == f"{device} {provenance.dtype}"
    return None if usual or provenance.device != device else provenance.dtype


def _on_cpu(settings: EvalSettings) -> bool:
    import torch

    return settings.gpus_per_worker == 0 or not torch.cuda.is_available()


def _checks(preset: Preset, sets: PromptSets, mine: Scores, other: Scores) -> list[Check]:
    searched, total = len(sets.search), len(sets.search) + len(sets.held_out)
    return [
        *_compare("held-out", preset.scores, _part(mine, searched, total), _part(other, searched, total)),
        *_compare("search", preset.search_scores, _part(mine, 0, searched), _part(other, 0, searched)),
    ]


def _part(scores: Scores, start: int, end: int) -> Scores:
    return {name: values[start:end] for name, values in scores.items()}


def _compare(
    prompts: Literal["held-out", "search"], recorded: Mapping[str, Score], mine: Scores, other: Scores
) -> Sequence[Check]:
    return [
        Check(
            objective=name,
            prompts=prompts,
            recorded=score,
            measured=(measured := compare({name: mine[name]}, other, None)[name]),
            verdict=_verdict(score, measured),
        )
        for name, score in recorded.items()
    ]


def _verdict(recorded: Score, measured: Score) -> Verdict:
    """Compares mean and difference; the interval of the difference is as wide around the mean as around it."""
    if (recorded.mean, recorded.delta) == (measured.mean, measured.delta):
        return "exact"
    low, high = recorded.ci95
    near = low <= measured.delta <= high
    near &= low <= measured.mean - recorded.mean + recorded.delta <= high
    return "within the interval" if near else "different"
