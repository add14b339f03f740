"""``tuner eval``, from settings to a finished evaluation."""

from __future__ import annotations

import functools
import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from studies.evaluate.plan import EvalPlan, make_eval_plan
from studies.evaluate.report import write_files
from studies.evaluate.results import Against, EvalResult, Evaluated
from studies.judge.intervals import paired_score, per_prompt
from studies.judge.noninferiority import NonInferiority, non_inferiority
from studies.judge.sequential import looks, until_decided
from studies.plan.plan import versions
from studies.records.folder import Folder
from studies.records.results import Checked
from studies.records.score_log import ScoreBook, ScoreLog
from studies.work.broken_images import summary
from studies.work.own_options import Contender
from studies.work.task import Failure
from studies.workers.dispatcher import Evaluations
from studies.workers.start import start_workers
from tuner.errors import UserError, one_line

if TYPE_CHECKING:
    from studies.evaluate.settings import EvalSettings
    from studies.work.task import Task
    from studies.workers.executors import Executor
    from tuner.presets import Score

OnUnit: TypeAlias = Callable[[int, int], None]
"""Called with the number of finished units of work and of all."""

Scores: TypeAlias = dict[str, list[float]]
"""Scores by objective, in the order of the images."""


def evaluate(
    settings: EvalSettings, *, on_progress: OnUnit | None = None, executor: Executor | None = None
) -> tuple[EvalResult, Folder]:
    """Draws and scores presets, the baseline, and plain steps that cost as much.

    The folder keeps every finished unit of work. Running the same settings again continues where the last run
    stopped, and a further preset costs only its own images. The folder then holds ``result.json``, ``result.md``
    and ``images.png``.

    Args:
        settings: What to evaluate.
        on_progress: Called whenever a unit of work has come back.
        executor: What runs the units of work; by default Ray workers as the settings say. It is closed at the end.

    Returns:
        The outcome, and the folder that keeps it.

    Raises:
        UserError: If a setting is wrong, or if the folder holds another evaluation.
        RuntimeError: If the baseline fails, or if workers keep dying.
        KeyboardInterrupt: On Ctrl-C, after the workers have stopped; what is finished is saved.
    """
    plan = make_eval_plan(settings)
    folder = open_folder(plan, "eval")
    with folder.lock():
        outcomes = run(plan, folder, on_progress, executor)
        result = _result(plan, folder, outcomes)
        write_files(result, folder, plan.prompts[: plan.chunk])
    return result, folder


def open_folder(plan: EvalPlan, kind: str) -> Folder:
    """Makes the folder of an evaluation, or opens an existing one.

    Args:
        plan: The checked evaluation.
        kind: Prefix of the folder's name if the user gave none.

    Raises:
        UserError: If the folder cannot be written, or holds scores of something else.
    """
    digest = hashlib.sha256(json.dumps(plan.identity).encode()).hexdigest()[:8]
    folder = Folder(Path(plan.settings.out or f"runs/{kind}-{plan.blueprint.name}-{digest}"))
    folder.check_writable("-o")
    about = folder.path / "evaluation.json"
    before = _identity_in(folder, about)
    for name in {**plan.identity, **before} if before else ():
        if before.get(name) != (now := plan.identity.get(name)):
            raise UserError(
                f"Folder {str(folder.path)!r} holds an evaluation of another `{name}` ({before.get(name)}, "
                f"now {now}); choose another one with -o."
            )
    folder.write(about.name, json.dumps(plan.identity, indent=2) + "\n")
    return folder


def _identity_in(folder: Folder, about: Path) -> dict[str, Any]:
    """Reads the identity of an evaluation; empty for a new one, and where the file was broken and is set aside.

    Scores are kept by everything that made them, so none is taken for those of another evaluation.
    """
    if not about.exists():
        return {}
    try:
        found: Any = json.loads(about.read_bytes())
    except (ValueError, RecursionError) as error:
        folder.set_aside(about, f"it is not JSON ({one_line(error)[:300]})")
        return {}
    if not isinstance(found, dict):
        folder.set_aside(about, "it holds no object")
        return {}
    return found


@dataclass(frozen=True)
class Outcomes:
    """What the contenders of an evaluation came to.

    Attributes:
        scores: Scores or a failure by `Contender.key`; degenerate images are counted over all units of work.
        checked: Whether a contender is as good as the baseline, by its name, if they were drawn until that was
            decided.
    """

    scores: dict[str, Scores | Failure]
    checked: dict[str, Checked]


def run(plan: EvalPlan, folder: Folder, on_progress: OnUnit | None, executor: Executor | None) -> Outcomes:
    """Runs the tasks that are not in the folder yet, on all prompts or until every contender is decided."""
    specs = dict(zip(plan.directions, plan.objectives, strict=True))
    scores = ScoreLog(folder.scores, plan.weights, specs, plan.made_by)
    own = [one.own for one in (plan.baseline, *plan.contenders) if one.own is not None]
    start = (
        (lambda: executor)
        if executor is not None
        else functools.partial(start_workers, plan.settings, plan.objectives, plan.baseline, own, plan.texts)
    )
    nothing = ScoreBook(plan.weights, specs)
    evaluations = Evaluations(
        plan, folder, scores, nothing, start, lambda task: plan.price(task.schedule, task.own)
    )
    outcomes: dict[str, Scores | Failure] = {}
    contenders = {one.name: one for one in plan.contenders}

    def draw(images: int, names: Sequence[str]) -> tuple[Scores | None, dict[str, Scores]]:
        drawn = (plan.baseline, *(contenders[name] for name in names))
        tasks = [task for contender in drawn for task in plan.tasks(contender, images)]
        _finish(evaluations, tasks, on_progress)
        outcomes.update({one.key: _outcome(plan, one, images, evaluations, scores) for one in drawn})
        succeeded = {one.name: found for one in drawn if isinstance(found := outcomes[one.key], dict)}
        return succeeded.pop(plan.baseline.name, None), succeeded

    checked: dict[str, Checked] = {}
    try:
        if plan.settings.until_decided:
            checked = until_decided(list(contenders), looks(len(plan.images)), draw, plan.margins, plan.judged)
        else:
            draw(len(plan.images), list(contenders))
    finally:
        evaluations.close()
        if executor is not None:
            executor.close()
    return Outcomes(outcomes, checked)


def _finish(evaluations: Evaluations, tasks: Sequence[Task], on_progress: OnUnit | None) -> None:
    evaluations.request(tasks)
    while True:
        if on_progress is not None:
            on_progress(sum(map(evaluations.has, tasks)), len(tasks))
        if not evaluations.working:
            break
        evaluations.wait()


def _outcome(
    plan: EvalPlan, contender: Contender, images: int, evaluations: Evaluations, scores: ScoreLog
) -> Scores | Failure:
    tasks = plan.tasks(contender, images)
    faults: Counter[str] = Counter()
    for task in tasks:
        found = scores.get(task)
        if isinstance(found, Failure):
            faults.update(found.degenerate)
    if faults:
        return Failure(summary(faults, images), degenerate=dict(faults))
    outcome = evaluations.outcome(tasks)
    if outcome is None:
        raise RuntimeError(f"units of work of {contender.name!r} have no outcome.")
    if isinstance(outcome, Failure):
        return outcome
    return {name: values[:images] for name, values in outcome.items()}


def _result(plan: EvalPlan, folder: Folder, outcomes: Outcomes) -> EvalResult:
    baseline = outcomes.scores[plan.baseline.key]
    if isinstance(baseline, Failure):
        raise RuntimeError(f"the baseline failed, so nothing can be compared with it: {baseline.reason}")
    seconds = seconds_per_image(folder.scores)
    by_cost = sorted((plan.baseline, *plan.contenders), key=lambda row: -plan.price(row.schedule, row.own).tflops)
    by_name = {contender.name: outcomes.scores[contender.key] for contender in by_cost}
    rows: list[Evaluated] = []
    dearer: str | None = None
    for contender in by_cost:
        row = _row(plan, contender, by_name, baseline, dearer, seconds)
        rows.append(_decided(row, outcomes.checked.get(contender.name)))
        dearer = dearer if rows[-1].failure else contender.name
    return EvalResult(
        model=plan.settings.model,
        weights=plan.identity["weights"],
        size=plan.size,
        objectives=plan.objectives,
        prompt_set=plan.prompt_set,
        prompts=max(row.prompts for row in rows),
        seeds=plan.settings.seeds,
        images=plan.identity["images"],
        versions=versions(),
        baseline=plan.baseline.name,
        chunk=plan.chunk,
        rows=rows,
    )


def _decided(row: Evaluated, checked: Checked | None) -> Evaluated:
    """Replaces claims that hold for one look by those that hold together over all looks."""
    if checked is None:
        return row
    claims = {
        name: NonInferiority(margin=loss.margin, points=loss.points, holds=loss.within, most_lost=loss.high)
        for name, loss in checked.losses.items()
    }
    return row.model_copy(update={"checked": checked, "non_inferior": claims})


def _row(
    plan: EvalPlan,
    contender: Contender,
    by_name: Mapping[str, Scores | Failure],
    baseline: Scores,
    dearer: str | None,
    seconds: Mapping[str, float],
) -> Evaluated:
    cost = plan.price(contender.schedule, contender.own)
    row = Evaluated(
        name=contender.name,
        schedule=contender.schedule,
        model_options=contender.own.options if contender.own else None,
        key=contender.key,
        tflops=cost.tflops,
        speedup=plan.price(plan.baseline.schedule, plan.baseline.own).tflops / cost.tflops,
        nfe=cost.nfe,
        seconds=seconds.get(contender.key),
    )
    scores = by_name[contender.name]
    if isinstance(scores, Failure):
        return row.model_copy(update={"failure": scores.reason, "degenerate": dict(scores.degenerate)})

    def against(name: str | None) -> Against | None:
        other = by_name[name] if name is not None else None
        if name is None or not isinstance(other, dict):
            return None
        return Against(name=name, scores=compare(scores, other, plan.prompts))

    prompts = plan.prompts[: len(next(iter(scores.values())))]
    found: dict[str, Any] = {
        "prompts": len(prompts) // plan.settings.seeds,
        "means": {name: float(per_prompt(values, prompts).mean()) for name, values in scores.items()},
        "plain": against(plan.plain_rivals.get(row.name)),
        "dearer": against(dearer),
    }
    if contender is not plan.baseline:
        found |= {
            "baseline": compare(scores, baseline, plan.prompts),
            "non_inferior": {
                name: non_inferiority(
                    values, baseline[name][: len(prompts)], plan.margins[name], direction, prompts
                )
                for (name, values), direction in zip(scores.items(), plan.directions.values(), strict=True)
            },
        }
    return row.model_copy(update=found)


def compare(scores: Scores, other: Scores, prompts: Sequence[str] | None) -> dict[str, Score]:
    """Compares every objective's scores with another schedule's on the images of both, clustered by prompt."""
    found = {}
    for name, values in scores.items():
        both = min(len(values), len(other[name]))
        found[name] = paired_score(values[:both], other[name][:both], prompts=prompts and prompts[:both])
    return found


def seconds_per_image(log: Path) -> dict[str, float]:
    """Reads how long an image took to sample and decode, by `Contender.key`: the median over units of work."""
    timed: dict[str, list[float]] = {}
    for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        if taken := line.get("seconds"):
            per_image = (taken.get("sampling", 0.0) + taken.get("decoding", 0.0)) / len(line["prompts"])
            timed.setdefault(line["schedule"], []).append(per_image)
    return {schedule: statistics.median(values) for schedule, values in timed.items()}
