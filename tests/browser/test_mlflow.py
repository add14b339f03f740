"""A study of 300 trials in MLflow's own UI: it opens, sorts, compares, and shows the page of the study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from selenium.common.exceptions import (
    NoSuchElementException,
    NoSuchFrameException,
    StaleElementReferenceException,
)
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from benchmarks.mlflow_server import mlflow_server
from studies import preset_of
from studies.report.mlflow_runs import PARENT_TAG, TRIAL_TAG, StudyRuns
from studies.report.mlflow_study import log_study
from tests.browser.conftest import PROMPTS, Browser
from tests.studies.example import DIRECTIONS, study
from tests.studies.study_files import write_study
from tuner import presets

pytestmark = pytest.mark.servers

TRIALS = 300
PATIENCE_S = 60


class Tracked:
    """The UI on a study of 300 trials."""

    def __init__(self, url: str, runs: StudyRuns, parent: str):
        self.url, self.parent = url, parent
        self.trials = {run.data.tags.get(TRIAL_TAG): run for run in runs.all() if PARENT_TAG in run.data.tags}
        (self.experiment,) = {run.info.experiment_id for run in self.trials.values()}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracked]:
    folder = tmp_path_factory.mktemp("tracked")
    result = study()
    written = write_study(folder / "flux-3x", result, DIRECTIONS, PROMPTS, ["unseen"] * 4, images=2)
    presets.save(preset_of(result.pick, written, result), written.preset)
    parent = log_study(written, None)
    runs = StudyRuns(written, None)
    for number in range(len(runs.all()) - 1, TRIALS):
        run = runs.start_trial(parent, str(1000 + number), "search", {})
        runs.log(run, {}, {"speedup": 1 + number / 100, "clip": 30.0, "tflops": 100.0})
    with mlflow_server(folder / "mlflow.db", folder / "mlflow-artifacts") as server:
        yield Tracked(server.url, runs, parent)


def text_with(browser: Browser, *words: str, in_frame: bool = False) -> str:
    """Waits until the window, or the frame in it, shows some words; the UI may draw either anew meanwhile."""

    def shown(driver: Chrome) -> str | None:
        driver.switch_to.default_content()
        if in_frame:
            driver.switch_to.frame(driver.find_element(By.TAG_NAME, "iframe"))
        text = driver.find_element(By.TAG_NAME, "body").text
        return text if all(word in text for word in words) else None

    redrawn = (StaleElementReferenceException, NoSuchElementException, NoSuchFrameException)
    return str(WebDriverWait(browser.driver, PATIENCE_S, ignored_exceptions=redrawn).until(shown))


def test_the_runs_open_sorted_by_speedup(tracked: Tracked, browser: Browser) -> None:
    order = quote("metrics.`speedup`")
    browser.visit(f"{tracked.url}/#/experiments/{tracked.experiment}/runs?orderByKey={order}&orderByAsc=false")
    fastest = sorted(tracked.trials.values(), key=lambda run: -run.data.metrics["speedup"])
    names = [str(run.info.run_name) for run in fastest[:10]]
    text = text_with(browser, *names)
    assert sorted(names, key=text.index) == names
    browser.screenshot("mlflow-runs")


def test_two_trials_are_compared(tracked: Tracked, browser: Browser) -> None:
    two = [tracked.trials[number] for number in ("4", "5")]
    ids = quote(json.dumps([run.info.run_id for run in two]))
    browser.visit(f"{tracked.url}/#/compare-runs?runs={ids}&experiments={quote(json.dumps([tracked.experiment]))}")
    names = [str(run.info.run_name) for run in two]
    text_with(browser, "Comparing 2 Runs", *names, "image_reward.ci95.low", "stage1.steps", "schedule")
    browser.screenshot("mlflow-comparison")


def test_the_page_of_the_study_runs_inside_the_ui(tracked: Tracked, browser: Browser) -> None:
    browser.visit(f"{tracked.url}/#/experiments/{tracked.experiment}/runs/{tracked.parent}/artifacts/report.html")
    text_with(browser, "The front", "times cheaper", in_frame=True)
    assert browser.driver.find_elements(By.CSS_SELECTOR, "svg circle")  # drawn by the page's own script
    browser.driver.switch_to.default_content()
    browser.screenshot("mlflow-page")
