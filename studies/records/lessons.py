"""What studies on disk have to teach: their knowledge, and which of them a search learns from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from studies.plan.knowledge import Difference, Finding, Knowledge, KnownObjective, read_knowledge
from studies.plan.plan import specs_of
from studies.records.study_folder import StudyFolder, list_studies, open_study
from tuner.errors import UserError

if TYPE_CHECKING:
    from studies.plan.plan import Plan
    from studies.plan.settings import SearchSettings
    from studies.records.results import Candidate

LEARNT = "learnt.json"
"""The file of a study's folder that keeps what it learnt from, so that a resumed study learns from the same."""

_KNOWN = TypeAdapter(tuple[Knowledge, ...])
_DEVIATIONS = 3.92  # standard errors that a 95 % interval of a normal mean is wide


def knowledge_of(study: StudyFolder) -> Knowledge:
    """Gathers what a finished study found out.

    Raises:
        UserError: If the study is not finished, or cannot be read.
    """
    result, identity = study.result(), study.identity
    specs = dict(zip(study.directions, identity["objectives"], strict=True))
    return Knowledge(
        study=study.name,
        model=result.model,
        size=identity["size"],
        frames=study.settings.options.frames,
        calls=study.baseline.calls,
        objectives=tuple(
            KnownObjective(name=name, spec=specs[name], direction=way) for name, way in study.directions.items()
        ),
        results=tuple(
            finding_of(one, list(specs), result.baseline.tflops, result.baseline.nfe, result.search_prompts or 1)
            for one in result.evaluated
        ),
    )


def finding_of(candidate: Candidate, names: Sequence[str], tflops: float, passes: int, prompts: int) -> Finding:
    """Turns the record of a schedule into what can be handed on.

    Args:
        candidate: The record.
        names: The objectives.
        tflops: TFLOPs of the baseline.
        passes: Its network passes.
        prompts: Prompts of the last rung.
    """
    scores = [candidate.scores[name] for name in names]
    return Finding(
        schedule=candidate.schedule,
        cost=candidate.tflops / tflops,
        passes=candidate.nfe / passes,
        prompts=candidate.stopped_at or prompts,
        differences=tuple(
            Difference(delta=score.delta, error=(score.ci95[1] - score.ci95[0]) / _DEVIATIONS) for score in scores
        ),
    )


def teachers(settings: SearchSettings) -> tuple[str, ...]:
    """Names the studies in ``out`` that a search learns from unless it is told otherwise.

    These are the finished ones of the same objectives, with the same weights. A study that has been started keeps
    those that it started with.

    Raises:
        UserError: If the model or an objective is not known.
    """
    if (started := _started_with(StudyFolder(Path(settings.out) / settings.name))) is not None:
        return started
    specs = set(specs_of(settings))
    return tuple(
        study.name
        for study in list_studies(settings.out)
        if study.state == "finished" and set(study.identity["objectives"]) == specs and study.result().evaluated
    )


def learnt(settings: SearchSettings, plan: Plan, folder: StudyFolder) -> tuple[Knowledge, ...]:
    """Reads what a search learns from: for a study that was started with the same, what was kept then.

    Args:
        settings: The settings; ``learn_from`` has names in ``out``, folders of studies and files.
        plan: The plan without it.
        folder: The folder of the search.

    Raises:
        UserError: If one of them cannot be read, or lacks an objective of the search.
    """
    kept = folder.path / LEARNT
    if kept.is_file() and _started_with(folder) == settings.learn_from:
        try:
            return _KNOWN.validate_json(kept.read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(
                f"Study {folder.name!r} has a broken {LEARNT}, without which it cannot be continued; start "
                "another one with --study, which takes the scores of this one."
            ) from error
    found = tuple(_read(name, settings.out) for name in settings.learn_from)
    for name, study in zip(settings.learn_from, found, strict=True):
        there = {objective.name: objective.direction for objective in study.objectives}
        lacking = [name for name, way in plan.directions.items() if there.get(name) != way]
        if lacking:
            raise UserError(
                f"A search cannot learn from {name!r}, which has no scores of {', '.join(lacking)}, but of "
                f"{', '.join(there)}; leave it out, or search with --objectives {','.join(there)}."
            )
    return found


def keep_learnt(folder: StudyFolder, plan: Plan) -> None:
    """Keeps what a new study learns from in its folder."""
    if plan.learnt and not (folder.path / LEARNT).is_file():
        found: list[Any] = [study.model_dump(mode="json") for study in plan.learnt]
        folder.write(LEARNT, json.dumps(found) + "\n")


def _started_with(folder: StudyFolder) -> tuple[str, ...] | None:
    try:
        return folder.settings.learn_from
    except UserError:
        return None


def _read(name: str, out: str) -> Knowledge:
    path = Path(name)
    if (path / "settings.json").is_file():
        return knowledge_of(StudyFolder(path))
    if path.suffix == ".json" or path.is_file():
        return read_knowledge(path)
    return knowledge_of(open_study(out, name))
