"""The study that `benchmarks.reliability` disturbs: how it is started, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.processes import marked, name_of, processes, wait_until
from studies import SearchSettings, open_study
from studies.report.mlflow_runs import PARENT_TAG, TRIAL_TAG, StudyRuns
from studies.workers.reaper import of_session

SMALL: dict[str, Any] = {
    "model": "tiny",
    "budget": "25x",
    "size": (32, 32),
    "trials": 1,
    "objectives": ("benchmarks.bad_luck:darkness",),
    "search_prompts": 2,
    "held_out_prompts": 2,
    "chunk": 1,
    "rungs": 1,
    "study": "study",
    "reuse": False,
}
LONG: dict[str, Any] = SMALL | {"budget": "12x", "search_prompts": 6}
"""Has room for many disturbances, one after the other."""

NOT_LOGGED = 3
"""Exit code of a search that has finished, and whose MLflow server did not answer."""

_VICTIMS = {"workers": "ray::_Worker", "both": "ray::_Worker", "raylet": "raylet", "gcs": "gcs_server"}
_MARK = "TUNER_RELIABILITY_ROUND"
_NICE = {"RAY_worker_niceness": "0"}
"""Ray's workers step back by default; beside other work they would neither work nor die within the time given."""
_GONE_S = 30.0
"""Seconds that a search's processes have to go away."""

_SCRIPT = f"""
import sys
from contextlib import ExitStack
from pathlib import Path
from studies import SearchSettings, StudyFolder, search
from studies.engine.live_log import LiveLog
from studies.report.mlflow_study import TrackingError, log_study
from tuner.errors import UserError

settings = SearchSettings.model_validate_json(sys.argv[1])
study = StudyFolder(Path(settings.out) / settings.name)
with ExitStack() as stack:
    log = stack.enter_context(LiveLog(study, settings.tracking_uri)) if settings.tracking_uri else None
    try:
        search(settings, resume=True, on_progress=log and log.show)
    except UserError as error:
        sys.exit(str(error))
if log:
    try:
        log_study(study, settings.tracking_uri)
    except TrackingError:
        sys.exit({NOT_LOGGED})
"""


class Sitting:
    """A search in a process of its own, which begins a study or resumes it.

    Attributes:
        driver: The process.
        left: Names of the processes that it left; known when the context has ended.
    """

    def __init__(self, driver: subprocess.Popen[bytes]):
        self.driver = driver
        self.left: list[str] = []

    def reaches(self, out: Path, number: int, seconds: float) -> bool:
        """Waits until the study has a number of lines; returns whether the search still runs."""
        wait_until(lambda: self.driver.poll() is not None or len(lines(out)) >= number, seconds)
        return self.driver.poll() is None


@contextmanager
def sitting(out: Path, values: Mapping[str, Any], variables: Mapping[str, str] | None = None) -> Iterator[Sitting]:
    """Starts a search, and waits for it and for what it started."""
    out.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    given = settings(out, values).model_dump_json()
    with (out / "log").open("ab") as log:
        env = os.environ | _NICE | {_MARK: mark} | (variables or {})
        driver = subprocess.Popen([sys.executable, "-c", _SCRIPT, given], stdout=log, stderr=log, env=env)
        found = Sitting(driver)
        try:
            yield found
        except BaseException:
            driver.kill()
            raise
        finally:
            driver.wait()

    def left() -> set[int]:  # an agent of Ray overwrites its mark
        return {*marked(mark), *of_session(driver.pid)}

    wait_until(lambda: not left(), _GONE_S)
    found.left = [name_of(process) for process in left()]


def settings(out: Path, values: Mapping[str, Any]) -> SearchSettings:
    """The study, in a folder."""
    return SearchSettings(**values, out=str(out))


def lines(out: Path) -> list[bytes]:
    """The whole lines of a study's score log."""
    path = out / "study" / "scores.jsonl"
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def evaluations(found: list[bytes]) -> set[tuple[Any, ...]]:
    """What was evaluated, without times."""
    parsed = [json.loads(line) for line in succeeded(found)]
    return {(one["schedule"], tuple(one["prompts"]), tuple(one["seeds"])) for one in parsed}


def succeeded(found: list[bytes]) -> list[bytes]:
    """The lines of evaluations that did not fail; of the others, those that may pass are tried again."""
    return [line for line in found if "failure" not in json.loads(line)]


def twice(found: list[bytes]) -> int:
    """How many evaluations were counted more than once."""
    return len(succeeded(found)) - len(evaluations(found))


def front(out: Path) -> Any:
    """The front of a finished study."""
    return json.loads((out / "study" / "result.json").read_text())["front"]


def kill(one: Sitting, kind: str) -> int:
    """Kills processes of Ray below a search; returns how many."""
    victims = processes(one.driver.pid, _VICTIMS[kind])
    for victim in victims:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    return len(victims)


def logged_once(out: Path, url: str) -> bool:
    """Whether MLflow has a finished study as one finished parent run with each trial once below it."""
    runs = StudyRuns(open_study(str(out), "study"), url).all()
    parents = [run for run in runs if PARENT_TAG not in run.data.tags]
    trials = [run.data.tags[TRIAL_TAG] for run in runs if PARENT_TAG in run.data.tags]
    return len(parents) == 1 and parents[0].info.status == "FINISHED" and len(trials) == len(set(trials)) > 0
