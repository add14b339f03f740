"""Logs a finished study to MLflow: a parent run, and a child run per front member and reference."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.records.environment import environment
from studies.records.export import preset_of
from studies.records.results import PROPOSED, Candidate, Pick, StudyResult
from studies.report.figures import contact_sheet, front_figure
from studies.report.tables import markdown, shorthand
from tuner import presets
from tuner.errors import one_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from PIL.Image import Image

    from studies.records.study_folder import StudyFolder
    from tuner.presets import Score
    from tuner.schedule import Schedule

EXPERIMENT = "tuner"

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default waits minutes for a server that is not there
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # results alone go to stdout
}
_STUDY_TAG, _TRIAL_TAG, _PARENT_TAG = "tuner.study_id", "tuner.trial", "mlflow.parentRunId"
_SHOWN_PROMPTS = 8


class TrackingError(RuntimeError):
    """MLflow could not be reached or refused; the study itself is finished and saved."""


def log_study(study: StudyFolder, tracking_uri: str | None = None) -> str:
    """Logs a finished study; logging it again replaces its earlier runs.

    The parent run has the settings, the totals, the front as a table and a picture, a contact sheet and the
    preset of the pick. The baseline, the references and the members of the front are its children, with their
    stages, cost, scores, preset and images.

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
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)  # both report every table that they create
        try:
            client = MlflowClient(tracking_uri or local_uri(study))
            return _Log(client, study, result, local=tracking_uri is None).write()
        except Exception as error:  # MLflow, requests, SQLAlchemy and artifact stores each raise their own
            reason = one_line(error)
            raise TrackingError(f"{type(error).__name__}: {reason[:300]}") from error


def local_uri(study: StudyFolder) -> str:
    """The MLflow database beside the studies of a folder."""
    return f"sqlite:///{study.path.parent.resolve() / 'mlflow.db'}"


class _Log:
    """Writes one study through one client."""

    def __init__(self, client: MlflowClient, study: StudyFolder, result: StudyResult, local: bool):
        self._client = client
        self._study = study
        self._result = result
        self._experiment = self._find_experiment(local)

    def write(self) -> str:
        """Writes new runs and then removes the earlier ones, so a reader never finds both or none."""
        earlier = self._runs_of_study()
        parent = self._log_parent()
        self._log_baseline(parent)
        shown = {candidate.trial: candidate for candidate in (*self._result.references, *self._result.front)}
        shown[self._result.pick.trial] = self._result.pick
        for trial in sorted(shown):
            self._log_candidate(parent, shown[trial])
        for run_id in earlier:
            self._client.delete_run(run_id)
        return parent

    def _find_experiment(self, local: bool) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        place = (self._study.path.parent / "mlflow-artifacts").resolve().as_uri() if local else None
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=place))

    def _runs_of_study(self) -> list[str]:
        query = f"tags.`{_STUDY_TAG}` = '{self._study.id}'"
        runs: list[str] = []
        token = None
        while True:
            page = self._client.search_runs([self._experiment], query, page_token=token)
            runs += [run.info.run_id for run in page]
            token = page.token
            if not token:
                return runs

    def _log_parent(self) -> str:
        result, identity = self._result, self._study.identity
        params = self._study.settings.model_dump(mode="json") | identity
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
        run = self._start(
            result.study, {"tuner.model": result.model, "mlflow.note.content": markdown(result)[:4000]}
        )
        self._log_values(
            run,
            {name: value for name, value in params.items() if value is not None},
            {
                "trials": result.trials,
                "elapsed_s": result.elapsed_s,
                "tflops_spent": result.tflops_spent,
                "front_size": len(result.front),
                "pick.speedup": result.pick.speedup,
                "baseline.tflops": result.baseline.tflops,
                **{f"pick.held_out.{name}": value for name, value in _flat(result.pick.held_out).items()},
            },
        )
        self._client.log_table(run, front, "front.json")
        self._client.log_figure(run, front_figure(result, self._study.directions), "front.png")
        self._client.log_text(run, markdown(result), "front.md")
        self._log_sheet(run, rows)
        self._client.log_artifact(run, str(self._study.preset))
        return self._end(run)

    def _log_baseline(self, parent: str) -> None:
        baseline = self._result.baseline
        run = self._start("baseline", {_PARENT_TAG: parent, _TRIAL_TAG: "baseline"})
        metrics = {"tflops": baseline.tflops, "nfe": baseline.nfe, "speedup": 1.0}
        self._log_values(
            run,
            _stage_params(self._study.baseline),
            metrics | {name: score.mean for name, score in baseline.scores.items()},
        )
        self._log_sheet(run, [("baseline", self._images(self._study.baseline))])
        self._end(run)

    def _log_candidate(self, parent: str, candidate: Candidate) -> None:
        picked = candidate.trial == self._result.pick.trial
        name = f"trial {candidate.trial}" + ("" if candidate.label == PROPOSED else f" ({candidate.label})")
        tags = {
            _PARENT_TAG: parent,
            _TRIAL_TAG: str(candidate.trial),
            "tuner.label": candidate.label,
            "tuner.pick": str(picked).lower(),
        }
        run = self._start(name, tags)
        metrics = {"tflops": candidate.tflops, "nfe": candidate.nfe, "speedup": candidate.speedup}
        if isinstance(candidate, Pick):
            metrics |= {f"held_out.{name}": value for name, value in _flat(candidate.held_out).items()}
        self._log_values(run, _stage_params(candidate.schedule), metrics | _flat(candidate.scores))
        with tempfile.TemporaryDirectory() as folder:
            preset = preset_of(candidate, self._study, self._result)
            self._client.log_artifact(run, str(presets.save(preset, Path(folder) / "preset.yaml")))
        self._log_sheet(run, [(name.replace(" (", "\n("), self._images(candidate.schedule))])
        self._end(run)

    def _start(self, name: str, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(self._experiment, run_name=name, tags={_STUDY_TAG: self._study.id, **tags})
        return str(run.info.run_id)

    def _end(self, run: str) -> str:
        self._client.set_terminated(run)
        return run

    def _log_values(self, run: str, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        self._client.log_batch(
            run,
            params=[Param(name, str(value)) for name, value in params.items()],
            metrics=[Metric(name, float(value), now, 0) for name, value in metrics.items()],
        )

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


def _stage_params(schedule: Schedule) -> dict[str, str]:
    """Writes a schedule as parameters that can be compared column by column."""
    params = {"schedule": shorthand(schedule), "stages": str(len(schedule.stages)), "solver": schedule.solver}
    for index, stage in enumerate(schedule.stages, start=1):
        params |= {
            f"stage{index}.scale": f"{stage.scale:.4g}",
            f"stage{index}.steps": str(stage.steps),
            f"stage{index}.sigmas": ", ".join(f"{sigma:.4g}" for sigma in stage.sigmas),
        }
        if index > 1:
            params |= {f"stage{index}.start": f"{stage.sigmas[0]:.4g}", f"stage{index}.resample": stage.resample}
    return params
