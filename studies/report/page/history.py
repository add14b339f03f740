"""What a search did with its compute: how fast the front grew, where the TFLOPs went, which knobs mattered."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from itertools import compress
from typing import TYPE_CHECKING, Any

from objectives.base import loss_sign
from studies.judge.pareto import hypervolume, nondominated
from studies.records.results import PROPOSED

if TYPE_CHECKING:
    import optuna

    from studies.records.results import Candidate, StudyResult
    from studies.records.study_folder import StudyFolder
    from studies.report.page.record import ScoreLines

_MOST_KNOBS = 8


def growth(
    scores: ScoreLines, result: StudyResult, study: StudyFolder, limit: float | None
) -> list[dict[str, Any]]:
    """Follows a search line by line of its score log.

    Args:
        scores: The score log.
        result: The outcome.
        study: The study.
        limit: The budget, in the unit of `Candidate.cost`; None for the dearest schedule's cost.

    Returns:
        For each time when a schedule was finished: TFLOPs ``spent``, ``seconds``, schedules ``scored`` on any
        prompts and ``finished`` on all, and the ``hypervolume`` of the finished ones in parts of the last. Its
        reference point is the budget and the worst mean of a reference, or of any schedule where there is none.
    """
    complete = [one for one in result.evaluated if one.stopped_at is None]
    worst_of = [one for one in complete if one.label != PROPOSED] or complete
    losses = {one.schedule.content_hash: _losses(one, study) for one in complete}
    reference = [max(values) for values in zip(*(_losses(one, study) for one in worst_of), strict=True)]
    reference[0] = limit or max(one.cost for one in complete)
    last = _last_lines(scores, {one.schedule.content_hash for one in result.evaluated})
    front: list[list[float]] = []
    spent, scored, finished, volume, rows = 0.0, 0, 0, 0.0, []
    for number, line in enumerate(scores.lines):
        spent += line["tflops"]
        if number in last:
            scored += 1
            if (found := losses.get(line["schedule"])) is not None:
                finished += 1
                if not any(all(a <= b for a, b in zip(member, found, strict=True)) for member in front):
                    front = [*front, found]
                    front = list(compress(front, nondominated(front, keep_equal=False)))
                    volume = hypervolume(front, reference)
            row = {"spent": spent, "seconds": line["elapsed_s"], "scored": scored, "finished": finished}
            rows.append(row | {"hypervolume": volume})
    whole = (rows[-1]["hypervolume"] if rows else 0.0) or 1.0
    return [row | {"hypervolume": row["hypervolume"] / whole} for row in rows]


def spending(scores: ScoreLines, study: StudyFolder) -> dict[str, float]:
    """Adds up the denoiser TFLOPs of each part of a search, and those that it did not have to spend."""
    spent = dict.fromkeys(("baseline", "references", "proposals", "check on unseen prompts"), 0.0)
    reused = {"prefixes": 0.0, "scores": 0.0}
    references = set(study.identity["references"])
    for line in scores.lines:
        if not scores.searched(line):
            part = "check on unseen prompts"
        elif line["schedule"] == study.baseline.content_hash:
            part = "baseline"
        else:
            part = "references" if line["schedule"] in references else "proposals"
        spent[part] += line["tflops"]
        for reason, tflops in line.get("reused", {}).items():
            reused[reason] += tflops
    return spent | {
        "reused: stages kept by workers": reused["prefixes"],
        "reused: scores of other studies": reused["scores"],
    }


def importances(recorded: optuna.Study | None, names: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Says which knobs of the space decide each objective: fANOVA (Hutter, Hoos and Leyton-Brown, ICML 2014).

    Only knobs that every trial has are compared. Empty where there are too few trials to say.
    """
    import optuna

    found: dict[str, dict[str, float]] = {}
    if recorded is None:
        return found
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=32, seed=0)
    for index, name in enumerate(names):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                shares = optuna.importance.get_param_importances(
                    recorded, evaluator=evaluator, target=functools.partial(_value, index)
                )
        except (ImportError, ValueError, RuntimeError):  # fewer than two trials, or nothing that differs
            continue
        if shares:
            found[name] = {knob: float(share) for knob, share in list(shares.items())[:_MOST_KNOBS]}
    return found


def _value(index: int, trial: optuna.trial.FrozenTrial) -> float:
    return float(trial.values[index])


def _losses(candidate: Candidate, study: StudyFolder) -> list[float]:
    signs = {name: loss_sign(direction) for name, direction in study.directions.items()}
    return [candidate.cost, *(sign * candidate.scores[name].mean for name, sign in signs.items())]


def _last_lines(scores: ScoreLines, schedules: set[str]) -> set[int]:
    """Numbers of the lines with which schedules had all the scores on search prompts that they ever got."""
    last: dict[str, int] = {}
    for number, line in enumerate(scores.lines):
        if line["schedule"] in schedules and scores.searched(line):
            last[line["schedule"]] = number
    return set(last.values())
