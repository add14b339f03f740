from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from studies.report.mlflow_study import TrackingError
from studies.report.mlflow_training import EXPERIMENT, TrainingLog


def test_curves_and_images_of_a_resumed_training_are_in_one_run(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    folder = tmp_path / "runs" / "student"
    folder.mkdir(parents=True)
    first = TrainingLog(folder, {"rank": 4})
    first.losses(1, {"mmd": 0.5})
    first.images(1, [Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "red")])
    first.close(finished=False)
    second = TrainingLog(folder, {"rank": 4})
    second.losses(2, {"mmd": 0.25})
    second.close(finished=True)

    client = MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"rank": "4"}
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "mmd")] == [(1, 0.5), (2, 0.25)]
    (sheet,) = client.list_artifacts(run.info.run_id, "validation")
    assert sheet.path == "validation/000001.png"


def test_a_server_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(TrackingError):
        TrainingLog(tmp_path, {}, "http://127.0.0.1:9")
