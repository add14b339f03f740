"""The runs of one study in an MLflow store: found, started, written and ended."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from studies.records.results import PROPOSED
from studies.report.tables import shorthand

if TYPE_CHECKING:
    from mlflow.entities import Run

    from studies.records.study_folder import StudyFolder
    from tuner.schedule import Schedule

EXPERIMENT = "tuner"

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default waits minutes for a server that is not there
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # results alone go to stdout
}
STUDY_TAG, TRIAL_TAG, PARENT_TAG, LIVE_TAG = "tuner.study_id", "tuner.trial", "mlflow.parentRunId", "tuner.live"


def local_uri(study: StudyFolder) -> str:
    """The MLflow database beside the studies of a folder."""
    return f"sqlite:///{study.path.parent.resolve() / 'mlflow.db'}"


class StudyRuns:
    """Finds and writes the runs of one study; every method raises what MLflow raises.

    Args:
        study: The study.
        tracking_uri: MLflow server or database; None for ``mlflow.db`` in the folder of the studies.

    Attributes:
        client: The client, for artifacts.
    """

    def __init__(self, study: StudyFolder, tracking_uri: str | None):
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic", "urllib3.connectionpool"):
            logging.getLogger(name).setLevel(logging.ERROR)  # they report every table and every try
        self.client = MlflowClient(tracking_uri or local_uri(study))
        self._study = study
        self._experiment = self._find_experiment(local=tracking_uri is None)

    def _find_experiment(self, local: bool) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        place = (self._study.path.parent / "mlflow-artifacts").resolve().as_uri() if local else None
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=place))

    def all(self) -> list[Run]:
        """Returns every run of the study, parents and children."""
        query = f"tags.`{STUDY_TAG}` = '{self._study.id}'"
        runs: list[Run] = []
        token = None
        while True:
            page = self.client.search_runs([self._experiment], query, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def start(self, name: str, tags: Mapping[str, str]) -> str:
        """Starts a run and returns its id."""
        run = self.client.create_run(self._experiment, run_name=name, tags={STUDY_TAG: self._study.id, **tags})
        return str(run.info.run_id)

    def start_trial(self, parent: str, number: str, label: str, tags: Mapping[str, str]) -> str:
        """Starts the run of a trial and returns its id."""
        ours = {PARENT_TAG: parent, TRIAL_TAG: number, "tuner.label": label}
        return self.start(trial_name(number, label), ours | dict(tags))

    def end(self, run: str, status: str = "FINISHED") -> str:
        """Ends a run and returns its id."""
        self.client.set_terminated(run, status)
        return run

    def log(self, run: str, params: Mapping[str, Any], metrics: Mapping[str, float], step: int = 0) -> None:
        """Writes parameters and metrics; a metric of a later step counts as newer."""
        from mlflow.entities import Metric, Param
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        self.client.log_batch(
            run,
            params=[Param(name, str(value)) for name, value in params.items() if value is not None],
            metrics=[Metric(name, float(value), now, step) for name, value in metrics.items()],
        )


def live_parent(runs: Sequence[Run]) -> str | None:
    """Finds the parent of a search that is not over, or was interrupted, among the runs of its study."""
    parents = (run for run in runs if LIVE_TAG in run.data.tags and PARENT_TAG not in run.data.tags)
    return next((run.info.run_id for run in parents), None)


def trial_name(number: str, label: str) -> str:
    """Names the run of a trial after its number and, unless the search proposed it, its label."""
    return f"trial {number}" + ("" if label == PROPOSED else f" ({label})")


def study_params(study: StudyFolder) -> dict[str, Any]:
    """The settings of a study and everything that decides its result."""
    return study.settings.model_dump(mode="json") | study.identity


def stage_params(schedule: Schedule) -> dict[str, str]:
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
