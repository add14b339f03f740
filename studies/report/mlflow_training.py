"""Logs a training run to MLflow as it runs: loss curves and validation images."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.records.environment import environment
from studies.report.figures import contact_sheet
from studies.report.mlflow_runs import ENVIRONMENT
from studies.report.mlflow_study import TrackingError
from tuner.errors import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

EXPERIMENT = "tuner-distillation"

_RUN_TAG = "tuner.training"
_STEPS_AT_ONCE = 25


class TrainingLog:
    """One MLflow run of one training; a resumed training continues the same run.

    Args:
        folder: Folder of the training; its absolute path tells runs apart.
        params: Settings to show.
        tracking_uri: MLflow server or database; None for ``mlflow.db`` beside the folder, where ``tuner ui``
            finds it.

    Raises:
        TrackingError: If MLflow cannot be reached or refuses; every method may raise it, too.
    """

    def __init__(self, folder: Path, params: Mapping[str, Any], tracking_uri: str | None = None):
        beside = folder.resolve().parent
        self._waiting: list[tuple[int, str, float]] = []
        with _quiet():
            from mlflow import MlflowClient
            from mlflow.entities import Param

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.ERROR)  # both report every table that they create
            self._client = MlflowClient(tracking_uri or f"sqlite:///{beside / 'mlflow.db'}")
            experiment = self._client.get_experiment_by_name(EXPERIMENT)
            if experiment is not None:
                number = experiment.experiment_id
            else:
                place = None if tracking_uri else (beside / "mlflow-artifacts").as_uri()
                number = self._client.create_experiment(EXPERIMENT, artifact_location=place)
            tag = str(folder.resolve())
            found = self._client.search_runs([number], f"tags.`{_RUN_TAG}` = '{tag}'", max_results=1)
            if found:
                self._run = str(found[0].info.run_id)
                self._client.update_run(self._run, status="RUNNING")
                return
            run = self._client.create_run(number, run_name=folder.name, tags={_RUN_TAG: tag})
            self._run = str(run.info.run_id)
            self._client.log_batch(self._run, params=[Param(name, str(value)) for name, value in params.items()])

    def losses(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the losses of a step; several steps are sent together."""
        self._waiting += [(step, name, value) for name, value in values.items()]
        if step % _STEPS_AT_ONCE == 0:
            self._send()

    def images(self, step: int, images: Sequence[Image]) -> None:
        """Logs the validation images of a step as one sheet."""
        self._send()
        with _quiet():
            sheet = contact_sheet([(f"step {step}", list(images))])
            self._client.log_image(self._run, sheet, artifact_file=f"validation/{step:06}.png")

    def close(self, finished: bool) -> None:
        """Ends the run."""
        self._send()
        with _quiet():
            self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")

    def _send(self) -> None:
        with _quiet():
            from mlflow.entities import Metric
            from mlflow.utils.time import get_current_time_millis

            now = get_current_time_millis()
            self._client.log_batch(
                self._run, metrics=[Metric(name, value, now, step) for step, name, value in self._waiting]
            )
        self._waiting = []


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences MLflow on the terminal and turns its errors into one type."""
    with environment(ENVIRONMENT), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:  # MLflow, requests, SQLAlchemy and artifact stores each raise their own
            raise TrackingError(f"{type(error).__name__}: {one_line(error)[:300]}") from error
