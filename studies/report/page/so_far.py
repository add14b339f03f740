"""The outcome of a study that is not finished, as far as it is on disk."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from studies.judge.intervals import paired_score
from studies.judge.pareto import front
from studies.judge.within import choose
from studies.records.results import PROPOSED, Baseline, Candidate, Mean, Pick, Reused, StudyResult
from studies.report.page.prices import prices
from tuner.errors import UserError
from tuner.schedule import Schedule

if TYPE_CHECKING:
    import optuna

    from studies.records.study_folder import StudyFolder
    from studies.report.page.prices import Prices
    from studies.report.page.record import ScoreLines


def result_so_far(study: StudyFolder, scores: ScoreLines, recorded: optuna.Study | None) -> StudyResult:
    """Makes a result of the trials that an unfinished study has recorded.

    The front and the pick go by measured scores. The pick has no scores on unseen prompts yet.

    Args:
        study: The study; it may be running.
        scores: Its score log.
        recorded: Its trials.

    Raises:
        UserError: If no schedule was scored on all search prompts yet, or if its model is not to be had here.
    """
    trials = [] if recorded is None else recorded.get_trials(deepcopy=False)
    known = prices(study)
    candidates = _candidates(study, known, scores, trials)
    finished = [candidate for candidate in candidates if candidate.stopped_at is None]
    if not finished:
        raise UserError(
            f"Study {study.name!r} in {str(study.path.parent)!r} has no schedule yet that was scored on all "
            "prompts; wait, or continue it with `--resume`."
        )
    members = front(finished, study.directions)
    chosen, _ = choose(
        finished,
        study.settings.pick,
        study.directions,
        lambda one: {name: scores.of(one.schedule.content_hash, name) for name in study.directions},
        {name: scores.of(study.baseline.content_hash, name) for name in study.directions},
    )
    baseline = known.baseline
    return StudyResult(
        study=study.name,
        model=study.settings.model,
        trials=len(trials),
        elapsed_s=scores.lines[-1]["elapsed_s"],
        tflops_spent=sum(line["tflops"] for line in scores.lines),
        baseline=Baseline(
            tflops=baseline.tflops,
            nfe=baseline.nfe,
            seconds=known.seconds(baseline),
            scores={
                name: Mean(mean=fmean(scores.of(study.baseline.content_hash, name))) for name in study.directions
            },
        ),
        front=members,
        references=[one for one in finished if one.label != PROPOSED and one not in members],
        evaluated=candidates,
        pick=Pick(**dict(chosen), held_out={}),
        preset=str(study.preset),
        directions=study.directions,
        search_prompts=scores.prompts,
        ended_by="unfinished",
        reused=Reused(
            **{
                reason: sum(line["reused"].get(reason, 0.0) for line in scores.lines)
                for reason in Reused.model_fields
            }
        ),
    )


def _candidates(
    study: StudyFolder, known: Prices, scores: ScoreLines, trials: list[optuna.trial.FrozenTrial]
) -> list[Candidate]:
    """Makes a record of each schedule, of the trial that scored it on most prompts."""
    baseline = {name: scores.of(study.baseline.content_hash, name) for name in study.directions}
    found: dict[str, Candidate] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.values is None:  # it failed
            continue
        schedule = Schedule.model_validate(trial.user_attrs["schedule"])
        price, prompts = known.of(schedule), trial.user_attrs["prompts"]
        found[schedule.content_hash] = Candidate(
            trial=trial.number,
            label=trial.user_attrs["label"],
            tflops=price.tflops,
            speedup=known.baseline.tflops / price.tflops,
            nfe=price.nfe,
            seconds=known.seconds(price),
            scores={
                name: paired_score(scores.of(schedule.content_hash, name)[:prompts], baseline[name][:prompts])
                for name in study.directions
            },
            schedule=schedule,
            stopped_at=None if prompts == scores.prompts else prompts,
        )
    return sorted(found.values(), key=lambda candidate: candidate.trial)
