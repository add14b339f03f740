"""Real MLflow: its sqlite store, and a server of its own on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import studies.plan.plan
from benchmarks.mlflow_server import mlflow_server
from studies import StudyFolder, log_study, open_study, search
from studies.report.mlflow_runs import EXPERIMENT, local_uri
from studies.report.mlflow_study import TrackingError
from tests.studies.toy import Counting, find_blueprint, toy_settings
from tuner import presets


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    settings = toy_settings(tmp_path_factory.mktemp("runs"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies.plan.plan, "blueprint", find_blueprint)
        search(settings, executor=Counting())
    return open_study(settings.out, settings.name)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(folder / "server.db", folder / "a") as server:
        yield server.url


def runs(client: Any) -> list[Any]:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return list(client.search_runs([experiment.experiment_id]))


def check(uri: str, study: StudyFolder, parent_id: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client, result = MlflowClient(uri), study.result()
    parent = client.get_run(parent_id)
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "toy-3x"
    assert parent.data.params["budget"] == "3x"
    assert parent.data.metrics["trials"] == result.trials
    assert parent.data.metrics["tflops_spent"] == pytest.approx(result.tflops_spent)
    assert {artifact.path for artifact in client.list_artifacts(parent_id)} == {
        "front.json",
        "front.md",
        "front.png",
        "report.html",
        "contact_sheet.png",
        "preset.yaml",
    }
    table = json.loads(Path(client.download_artifacts(parent_id, "front.json", str(tmp_path))).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["trial"] for row in rows] == [candidate.trial for candidate in result.front]
    assert [row["clip.expected"] for row in rows] == pytest.approx([c.expected["clip"] for c in result.front])
    assert [row["clip.delta"] for row in rows] == pytest.approx([c.scores["clip"].delta for c in result.front])

    children = {run.data.tags["tuner.trial"]: run for run in runs(client) if run.info.run_id != parent_id}
    shown = {candidate.trial: candidate for candidate in (*result.references, *result.front)}
    assert set(children) == {"baseline", *map(str, shown)}
    for run in children.values():
        assert run.data.tags["mlflow.parentRunId"] == parent_id
    assert children["baseline"].data.metrics["clip"] == pytest.approx(result.baseline.scores["clip"].mean)
    for trial, candidate in shown.items():
        data = children[str(trial)].data
        assert data.metrics["tflops"] == pytest.approx(candidate.tflops)
        score = candidate.scores["clip"]
        logged = [data.metrics[f"clip{part}"] for part in ("", ".delta", ".ci95.low", ".ci95.high")]
        assert logged == pytest.approx([score.mean, score.delta, *score.ci95])
        assert data.params["stage1.steps"] == str(candidate.schedule.stages[0].steps)
    pick = children[str(result.pick.trial)]
    assert pick.data.metrics["held_out.clip"] == pytest.approx(result.pick.held_out["clip"].mean)
    run_id = pick.info.run_id
    assert {artifact.path for artifact in client.list_artifacts(run_id)} == {"contact_sheet.png", "preset.yaml"}
    preset = presets.load(client.download_artifacts(run_id, "preset.yaml", str(tmp_path)))
    assert preset.schedule == result.pick.schedule


def test_a_study_is_logged_to_the_local_store_and_again_without_doubling(
    study: StudyFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = log_study(study)
    check(local_uri(study), study, first, tmp_path)
    second = log_study(study)
    assert second != first
    check(local_uri(study), study, second, tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.servers
def test_a_study_is_logged_to_a_server(
    study: StudyFolder, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parent = log_study(study, server)
    assert capsys.readouterr().out == ""
    check(server, study, parent, tmp_path)


def test_an_unreachable_server_is_said_in_one_line(study: StudyFolder) -> None:
    with pytest.raises(TrackingError) as caught:
        log_study(study, "http://127.0.0.1:9")
    assert "\n" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert study.state == "finished"
