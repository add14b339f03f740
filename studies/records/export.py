"""Makes presets of a study's candidates: schedule, cost, scores and provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studies.plan.plan import image_seeds
from tuner.presets import Cost, Preset, Provenance

if TYPE_CHECKING:
    from studies.records.results import Candidate, StudyResult
    from studies.records.study_folder import StudyFolder


def preset_of(candidate: Candidate, study: StudyFolder, result: StudyResult) -> Preset:
    """Makes a preset of any candidate.

    Args:
        candidate: Any of ``result.evaluated``.
        study: Its study.
        result: The outcome of the study; only its pick has held-out scores.
    """
    identity = study.identity
    height, width = identity["size"]
    held_out = result.pick.held_out if candidate.trial == result.pick.trial else {}
    return Preset(
        name=f"{study.name}-trial-{candidate.trial}",
        model=result.model,
        source=f"tuner search, study {study.name}, trial {candidate.trial} ({candidate.label})",
        height=height,
        width=width,
        schedule=candidate.schedule,
        model_options=study.settings.options.of_presets(),
        cost=Cost(tflops=candidate.tflops, nfe=candidate.nfe, speedup=candidate.speedup),
        scores=held_out,
        search_scores=candidate.scores,
        provenance=Provenance(
            study=study.name,
            trial=candidate.trial,
            seed=identity["seed"],
            image_seeds=image_seeds(identity["seed"]),
            prompts_hash=identity["prompts"],
            prompts=len(study.prompts),
            objectives=tuple(identity["objectives"]),
            versions=study.versions,
            target=study.settings.for_target,
            learnt_from=tuple(f"{name} {digest}" for name, digest in identity.get("learnt", [])) or None,
            created=study.created,
            device=study.device,
            dtype=study.dtype,
        ),
    )
