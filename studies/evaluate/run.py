"""``tuner eval``, from settings to a finished evaluation."""

from __future__ import annotations

import functools
import hashlib
import json
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from studies.evaluate.plan import EvalPlan, make_eval_plan
from studies.evaluate.report import write_files
from studies.evaluate.results import Against, EvalResult, Evaluated
from studies.judge.intervals import paired_score, per_prompt
from studies.judge.noninferiority import non_inferiority
from studies.plan.plan import versions
from studies.records.folder import Folder
from studies.records.score_log import ScoreBook, ScoreLog
from studies.work.broken_images import summary
from studies.work.own_options import Contender
from studies.work.task import Failure
from studies.workers.dispatcher import Evaluations
from studies.workers.start import start_workers
from tuner.errors import UserError

if TYPE_CHECKING:
    from studies.evaluate.settings import EvalSettings
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
    about = folder.path / "evaluation.json"
    if about.exists():
        before = json.loads(about.read_text(encoding="utf-8"))
        for name in {**plan.identity, **before}:
            if before.get(name) != (now := plan.identity.get(name)):
                raise UserError(
                    f"Folder {str(folder.path)!r} holds an evaluation of another `{name}` ({before.get(name)}, "
                    f"now {now}); choose another one with -o."
                )
    folder.check_writable("-o")
    folder.write(about.name, json.dumps(plan.identity, indent=2) + "\n")
    return folder


def run(
    plan: EvalPlan, folder: Folder, on_progress: OnUnit | None, executor: Executor | None
) -> dict[str, Scores | Failure]:
    """Runs the tasks that are not in the folder yet.

    Returns:
        By the key of each contender, its scores or its failure; degenerate images are counted over all units of
        work.
    """
    specs = dict(zip(plan.directions, plan.objectives, strict=True))
    scores = ScoreLog(folder.scores, plan.weights, specs, plan.made_by)
    start = (
        (lambda: executor)
        if executor is not None
        else functools.partial(start_workers, plan.settings, plan.objectives, plan.baseline)
    )
    nothing = ScoreBook(plan.weights, specs)
    evaluations = Evaluations(
        plan, folder, scores, nothing, start, lambda task: plan.price(task.schedule, task.own)
    )
    contenders = (plan.baseline, *plan.contenders)
    tasks = [task for contender in contenders for task in plan.tasks(contender)]
    try:
        evaluations.request(tasks)
        while True:
            if on_progress is not None:
                on_progress(sum(map(evaluations.has, tasks)), len(tasks))
            if not evaluations.working:
                break
            evaluations.wait()
    finally:
        evaluations.close()
        if executor is not None:
            executor.close()
    return {contender.key: _outcome(plan, contender, evaluations, scores) for contender in contenders}


def _outcome(plan: EvalPlan, contender: Contender, evaluations: Evaluations, scores: ScoreLog) -> Scores | Failure:
    tasks = plan.tasks(contender)
    faults: Counter[str] = Counter()
    for task in tasks:
        found = scores.get(task)
        if isinstance(found, Failure):
            faults.update(found.degenerate)
    if faults:
        return Failure(summary(faults, len(plan.images)), degenerate=dict(faults))
    outcome = evaluations.outcome(tasks)
    if outcome is None:
        raise RuntimeError(f"units of work of {contender.name!r} have no outcome.")
    return outcome


def _result(plan: EvalPlan, folder: Folder, outcomes: Mapping[str, Scores | Failure]) -> EvalResult:
    baseline = outcomes[plan.baseline.key]
    if isinstance(baseline, Failure):
        raise RuntimeError(f"the baseline failed, so nothing can be compared with it: {baseline.reason}")
    seconds = seconds_per_image(folder.scores)
    by_cost = sorted((plan.baseline, *plan.contenders), key=lambda row: -plan.price(row.schedule, row.own).tflops)
    by_name = {contender.name: outcomes[contender.key] for contender in by_cost}
    rows: list[Evaluated] = []
    dearer: str | None = None
    for contender in by_cost:
        rows.append(_row(plan, contender, by_name, baseline, dearer, seconds))
        dearer = dearer if rows[-1].failure else contender.name
    return EvalResult(
        model=plan.settings.model,
        weights=plan.identity["weights"],
        size=plan.size,
        objectives=plan.objectives,
        prompt_set=plan.prompt_set,
        prompts=len(plan.images) // plan.settings.seeds,
        seeds=plan.settings.seeds,
        images=plan.identity["images"],
        versions=versions(),
        baseline=plan.baseline.name,
        chunk=plan.chunk,
        rows=rows,
    )


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

    found: dict[str, Any] = {
        "means": {name: float(per_prompt(values, plan.prompts).mean()) for name, values in scores.items()},
        "plain": against(plan.plain_rivals.get(row.name)),
        "dearer": against(dearer),
    }
    if contender is not plan.baseline:
        found |= {
            "baseline": compare(scores, baseline, plan.prompts),
            "non_inferior": {
                name: non_inferiority(values, baseline[name], plan.margins[name], direction, plan.prompts)
                for (name, values), direction in zip(scores.items(), plan.directions.values(), strict=True)
            },
        }
    return row.model_copy(update=found)


def compare(scores: Scores, other: Scores, prompts: Sequence[str] | None) -> dict[str, Score]:
    """Compares every objective's scores with another schedule's on the same images, clustered by prompt."""
    return {name: paired_score(values, other[name], prompts=prompts) for name, values in scores.items()}


def seconds_per_image(log: Path) -> dict[str, float]:
    """Reads how long an image took to sample and decode, by `Contender.key`: the median over units of work."""
    timed: dict[str, list[float]] = {}
    for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        if taken := line.get("seconds"):
            per_image = (taken["sampling"] + taken["decoding"]) / len(line["prompts"])
            timed.setdefault(line["schedule"], []).append(per_image)
    return {schedule: statistics.median(values) for schedule, values in timed.items()}
