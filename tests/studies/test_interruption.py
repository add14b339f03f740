"""A driver that is killed outright, twice, in the middle of a study."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from studies import open_study, search
from tests.studies.test_search import comparable
from tests.studies.toy import Counting, toy_settings

_DRIVER = """
import sys, time
from pathlib import Path
import studies.plan.plan
from tests.studies.toy import Counting, find_blueprint, toy_settings
from studies import search

class Slow(Counting):
    def next(self):
        time.sleep(0.05)
        return super().next()

studies.plan.plan.blueprint = find_blueprint
search(toy_settings(Path(sys.argv[1])), executor=Slow(), resume=True)
"""


def lines(out: Path) -> int:
    scores = out / "toy-3x" / "scores.jsonl"
    return scores.read_bytes().count(b"\n") if scores.exists() else 0


def test_a_driver_killed_twice_finds_the_front_of_one_that_was_not(tmp_path: Path) -> None:
    out = tmp_path / "killed"
    for target in (5, 15):
        driver = subprocess.Popen([sys.executable, "-c", _DRIVER, str(out)], env=os.environ | {"PYTHONPATH": "."})
        while lines(out) < target:
            assert driver.poll() is None, "the driver was over before it could be killed"
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
        assert driver.wait() == -signal.SIGKILL
    before = lines(out)
    executor = Counting()
    resumed = search(toy_settings(out), executor=executor, resume=True)
    unharmed = search(toy_settings(tmp_path / "unharmed"), executor=Counting())
    assert comparable(resumed) == comparable(unharmed)
    assert resumed.model_dump_json(include={"front"}) == unharmed.model_dump_json(include={"front"})
    assert lines(out) == before + len(executor.ran)
    assert open_study(str(out), "toy-3x").state == "finished"
