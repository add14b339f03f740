"""Logs a finished study to MLflow: a parent run, and a child run per front member and reference."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studies.records.environment import environment
from studies.records.export import preset_of
from studies.records.results import Candidate, Pick, StudyResult
from studies.report.figures import contact_sheet, front_figure
from studies.report.mlflow_runs import (
    ENVIRONMENT,
    LIVE_TAG,
    PARENT_TAG,
    TRIAL_TAG,
    StudyRuns,
    live_parent,
    stage_params,
    study_params,
    trial_name,
)
from studies.report.page import page
from studies.report.tables import markdown, shorthand
from tuner import presets
from tuner.errors import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

    from studies.records.study_folder import StudyFolder
    from tuner.presets import Score
    from tuner.schedule import Schedule

_SHOWN_PROMPTS = 8


class TrackingError(RuntimeError):
    """MLflow could not be reached or refused; the study itself is finished and saved."""


def log_study(study: StudyFolder, tracking_uri: str | None = None) -> str:
    """Logs a finished study; logging it again replaces its earlier runs.

    The parent run has the settings, the totals, the front as a table and a picture, a contact sheet and the
    preset of the pick. The baseline, the references and the members of the front are its children, with their
    stages, cost, scores, preset and images.

    If the search was logged while it ran, its parent run is continued, and its children are replaced.

    Args:
        study: The study.
        tracking_uri: MLflow server or database; None for ``mlflow.db`` in the folder of the studies.

    Returns:
        The id of the parent run.

    Raises:
        UserError: If the study is not finished.
        TrackingError: If MLflow cannot be reached or refuses.
    """
    result = study.result()
    with environment(ENVIRONMENT), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, about SQLAlchemy and pandas
        try:
            return _Log(StudyRuns(study, tracking_uri), study, result).write()
        except Exception as error:  # MLflow, requests, SQLAlchemy and artifact stores each raise their own
            reason = one_line(error)
            raise TrackingError(f"{type(error).__name__}: {reason[:300]}") from error


class _Log:
    """Writes one study."""

    def __init__(self, runs: StudyRuns, study: StudyFolder, result: StudyResult):
        self._runs = runs
        self._client = runs.client
        self._study = study
        self._result = result

    def write(self) -> str:
        """Writes new runs and then removes the earlier ones, so a reader never finds both or none.

        The parent that the search wrote while it ran is continued.
        """
        earlier = self._runs.all()
        live = live_parent(earlier)
        if live:
            self._client.delete_tag(live, LIVE_TAG)  # from here on it may have artifacts, which only append
        parent = self._log_parent(live)
        self._log_baseline(parent)
        shown = {candidate.trial: candidate for candidate in (*self._result.references, *self._result.front)}
        shown[self._result.pick.trial] = self._result.pick
        for trial in sorted(shown):
            self._log_candidate(parent, shown[trial])
        for run in earlier:
            if run.info.run_id != parent:
                self._client.delete_run(run.info.run_id)
        return self._runs.end(parent)

    def _log_parent(self, run: str | None) -> str:
        result = self._result
        rows = [("baseline", self._images(self._study.baseline))]
        rows += [
            (f"trial {candidate.trial}\n{candidate.speedup:.2f}x", self._images(candidate.schedule))
            for candidate in result.front
        ]
        front = {
            "trial": [candidate.trial for candidate in result.front],
            "label": [candidate.label for candidate in result.front],
            "schedule": [shorthand(candidate.schedule) for candidate in result.front],
            "tflops": [candidate.tflops for candidate in result.front],
            "speedup": [candidate.speedup for candidate in result.front],
            "nfe": [candidate.nfe for candidate in result.front],
        }
        for name in result.baseline.scores:
            scores = [candidate.scores[name] for candidate in result.front]
            front |= {name: [score.mean for score in scores], f"{name}.delta": [score.delta for score in scores]}
            front |= {f"{name}.ci95.{end}": [score.ci95[i] for score in scores] for i, end in enumerate(_ENDS)}
            front[f"{name}.expected"] = [candidate.outlook(name) for candidate in result.front]
        run = run or self._runs.start(result.study, {"tuner.model": result.model})
        self._client.set_tag(run, "mlflow.note.content", markdown(result)[:4000])
        self._runs.log(
            run,
            study_params(self._study),
            {
                "trials": result.trials,
                "elapsed_s": result.elapsed_s,
                "tflops_spent": result.tflops_spent,
                "front_size": len(result.front),
                "pick.speedup": result.pick.speedup,
                "baseline.tflops": result.baseline.tflops,
                **{f"pick.held_out.{name}": value for name, value in _flat(result.pick.held_out).items()},
            },
            step=result.trials,
        )
        self._client.log_table(run, front, "front.json")
        self._client.log_figure(run, front_figure(result, self._study.directions), "front.png")
        self._client.log_text(run, markdown(result), "front.md")
        self._client.log_text(run, page(self._study), "report.html")
        self._log_sheet(run, rows)
        self._client.log_artifact(run, str(self._study.preset))
        return run

    def _log_baseline(self, parent: str) -> None:
        baseline = self._result.baseline
        run = self._runs.start("baseline", {PARENT_TAG: parent, TRIAL_TAG: "baseline"})
        metrics = {"tflops": baseline.tflops, "nfe": baseline.nfe, "speedup": 1.0}
        self._runs.log(
            run,
            stage_params(self._study.baseline),
            metrics | {name: score.mean for name, score in baseline.scores.items()},
        )
        self._log_sheet(run, [("baseline", self._images(self._study.baseline))])
        self._runs.end(run)

    def _log_candidate(self, parent: str, candidate: Candidate) -> None:
        picked = candidate.trial == self._result.pick.trial
        pick = {"tuner.pick": str(picked).lower()}
        run = self._runs.start_trial(parent, str(candidate.trial), candidate.label, pick)
        metrics = {"tflops": candidate.tflops, "nfe": candidate.nfe, "speedup": candidate.speedup}
        if isinstance(candidate, Pick):
            metrics |= {f"held_out.{name}": value for name, value in _flat(candidate.held_out).items()}
        self._runs.log(run, stage_params(candidate.schedule), metrics | _flat(candidate.scores))
        with tempfile.TemporaryDirectory() as folder:
            preset = preset_of(candidate, self._study, self._result)
            self._client.log_artifact(run, str(presets.save(preset, Path(folder) / "preset.yaml")))
        name = trial_name(str(candidate.trial), candidate.label)
        self._log_sheet(run, [(name.replace(" (", "\n("), self._images(candidate.schedule))])
        self._runs.end(run)

    def _log_sheet(self, run: str, rows: Sequence[tuple[str, list[Image]]]) -> None:
        shown = [row for row in rows if row[1]]
        if shown:
            self._client.log_image(run, contact_sheet(shown), artifact_file="contact_sheet.png")

    def _images(self, schedule: Schedule) -> list[Image]:
        from PIL import Image

        images = []
        for path in self._study.images(schedule.content_hash)[:_SHOWN_PROMPTS]:
            with Image.open(path) as image:
                images.append(image.convert("RGB"))
        return images


_ENDS = ("low", "high")


def _flat(scores: Mapping[str, Score]) -> dict[str, float]:
    """Turns scores into metrics, e.g. ``clip``, ``clip.delta``, ``clip.ci95.low``, ``clip.ci95.high``."""
    metrics: dict[str, float] = {}
    for name, score in scores.items():
        metrics |= {name: score.mean, f"{name}.delta": score.delta}
        metrics |= {f"{name}.ci95.{end}": value for end, value in zip(_ENDS, score.ci95, strict=True)}
    return metrics
