"""What a study loses when things go wrong: ``python -m benchmarks.reliability --json``.

Runs small studies of `tiny`, does something bad to each, and resumes it. In the end every evaluation that was
finished before must be there, each once; no process may be left; and the front must be the undisturbed one.

- `driver`: SIGKILL of the search
- `workers`: SIGKILL of a Ray worker, while the search goes on
- `both`: SIGKILL of a worker, then of the search
- `race`: two searches start the same new study, a random moment apart
- `raylet`, `gcs`: SIGKILL of a process of Ray, which ends the search
- `node`: a node of a cluster of two is lost
- `hang`, `die`, `exhaust`: a task in a Ray worker hangs, kills its worker, or runs out of memory
- `disk`: the disk is full at a random evaluation (the write fails with ENOSPC)
- `mlflow`: no MLflow server answers
- `postgresql`: a PostgreSQL server that keeps the trials is restarted (left out where there is none, or no driver)
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import postgresql
from benchmarks.bad_luck import VARIABLE
from benchmarks.processes import marked, processes, wait_until
from studies import SearchSettings, search
from studies.records import score_log
from tuner.errors import UserError

KINDS = (
    *("driver", "workers", "both", "raylet", "gcs", "node"),
    *("hang", "die", "exhaust", "race", "disk", "mlflow", "postgresql"),
)
_VICTIMS = {"workers": "ray::_Worker", "both": "ray::_Worker", "raylet": "raylet", "gcs": "gcs_server"}
_SETTINGS: dict[str, Any] = {
    "model": "tiny",
    "budget": "6x",
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
_MARK = "TUNER_RELIABILITY_ROUND"
_TASK_S = 60.0
"""Seconds after which a task counts as hanging."""
_WAIT_S = 30.0
"""Seconds that a killed search's processes have to go away."""
_LONGEST_S = 600.0
"""Seconds that a search may take to get to the moment when it is killed."""

_SCRIPT = """
import json, sys
from studies import SearchSettings, open_study, search
from studies.report.mlflow_study import TrackingError, log_study
from tuner.errors import UserError

settings = SearchSettings.model_validate_json(sys.argv[1])
try:
    search(settings, resume=True)
except UserError as error:
    sys.exit(str(error))
if settings.tracking_uri:
    try:
        log_study(open_study(settings.out, settings.name), settings.tracking_uri)
    except TrackingError:
        sys.exit(3)
"""


class Bench:
    """Runs rounds in a folder and counts what went wrong.

    Args:
        folder: For the studies.
        seed: Of the moments.
    """

    def __init__(self, folder: Path, seed: int):
        self._folder = folder
        self._rng = random.Random(seed)
        self._studies = 0
        self.injected: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter(
            dict.fromkeys(("lost", "twice", "orphans", "other_fronts", "failed"), 0)
        )
        self._expected = self._undisturbed()

    def round(self, kind: str) -> None:
        """Does one bad thing to a new study, and lets it finish."""
        self._studies += 1
        out = self._folder / f"{self._studies}-{kind}"
        ways: dict[str, Callable[[Path, str], list[bytes]]] = {
            "disk": self._fill,
            "race": self._race,
            "mlflow": self._without_mlflow,
            "node": self._lose_node,
            **dict.fromkeys(("hang", "die", "exhaust"), self._bad_task),
            "postgresql": self._restart_postgresql,
        }
        before = ways.get(kind, self._kill)(out, kind)
        after = lines(out)
        self.wrong["lost"] += len(before) - sum(one == other for one, other in zip(before, after, strict=False))
        self._finish(out)
        self.wrong["twice"] += twice(lines(out))
        self.wrong["lost"] += len(self._evaluations - evaluations(lines(out)))
        self.wrong["other_fronts"] += front(out) != self._expected

    def _undisturbed(self) -> Any:
        out = self._folder / "undisturbed"
        search(settings(out, workers=0))
        self._evaluations = evaluations(lines(out))
        return front(out)

    def _finish(self, out: Path) -> None:
        """Resumes a study, also one that is over: then nothing may change."""
        search(settings(out, workers=0), resume=True)

    def _moment(self) -> int:
        return self._rng.randrange(len(self._evaluations))

    def _fill(self, out: Path, kind: str) -> list[bytes]:
        left = self._moment()

        def append(path: Path, content: bytes) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(path, content)

        write, score_log.append = score_log.append, append
        try:
            search(settings(out, workers=0))
            self.wrong["failed"] += 1  # it must say that the disk is full
        except UserError:
            self.injected["full disks"] += 1
        finally:
            score_log.append = write
        return lines(out)

    def _kill(self, out: Path, kind: str) -> list[bytes]:
        """Kills processes of Ray, the search, or first the one and then the other."""
        moment, on_ray = self._moment(), kind != "driver"
        with self._started(out, workers=int(on_ray)) as driver:
            wait_until(lambda: driver.poll() is not None or len(lines(out)) >= moment, _LONGEST_S)
            time.sleep(self._rng.uniform(0, 0.5))
            before = lines(out)
            if on_ray:
                for victim in processes(driver.pid, _VICTIMS[kind]):
                    os.kill(victim, signal.SIGKILL)
                    self.injected[f"SIGKILLs of {_VICTIMS[kind]}"] += 1
            if kind in ("driver", "both") and driver.poll() is None:
                driver.send_signal(signal.SIGKILL)
                self.injected["SIGKILLs of drivers"] += 1
            elif self._code(driver) and kind == "workers":  # the others may end the search
                self.wrong["failed"] += 1
        return before

    def _code(self, driver: subprocess.Popen[bytes]) -> int:
        """Waits for a search, which is killed and counts as failed when it hangs."""
        try:
            return driver.wait(_LONGEST_S)
        except subprocess.TimeoutExpired:
            self.wrong["failed"] += 1
            driver.kill()
            return driver.wait()

    def _bad_task(self, out: Path, kind: str) -> list[bytes]:
        out.mkdir(parents=True)
        bad = {VARIABLE: f"{kind}:{out / 'happened'}"}
        with self._started(out, bad, workers=1, task_timeout=_TASK_S) as driver:
            code = self._code(driver)
        self.wrong["failed"] += code != 0 and kind != "exhaust"  # a baseline without memory ends the search
        self.injected[f"tasks that {kind}"] += (out / "happened").exists()
        return lines(out)

    def _lose_node(self, out: Path, kind: str) -> list[bytes]:
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        try:
            lost, moment = cluster.add_node(num_cpus=1), self._moment()
            with self._started(out, workers=2, ray_address=cluster.address) as driver:
                wait_until(lambda: driver.poll() is not None or len(lines(out)) >= moment, _LONGEST_S)
                before = lines(out)
                cluster.remove_node(lost, allow_graceful=False)
                self.wrong["failed"] += self._code(driver) != 0
        finally:
            cluster.shutdown()
        self.injected["nodes lost"] += 1
        return before

    def _restart_postgresql(self, out: Path, kind: str) -> list[bytes]:
        if not postgresql.is_here():
            return []
        with postgresql.server() as (url, restart):
            moment = self._moment()
            with self._started(out, workers=0, storage=url) as driver:
                wait_until(lambda: driver.poll() is not None or len(lines(out)) >= moment, _LONGEST_S)
                before = lines(out)
                restart()
                self._code(driver)  # it ends in one line, or has not noticed
            self.injected["restarts of PostgreSQL"] += 1
            search(settings(out, workers=0, storage=url), resume=True)
        return before

    def _race(self, out: Path, kind: str) -> list[bytes]:
        with self._started(out, workers=0) as first:
            time.sleep(self._rng.uniform(0, 3))
            with self._started(out, workers=0) as second:
                codes = [self._code(first), self._code(second)]
        self.injected["races of two drivers"] += 1
        self.wrong["failed"] += 0 not in codes  # one of them finishes; the other is refused, or comes after it
        return lines(out)

    def _without_mlflow(self, out: Path, kind: str) -> list[bytes]:
        with self._started(out, workers=0, tracking_uri="http://127.0.0.1:9") as driver:
            self.wrong["failed"] += self._code(driver) != 3
        self.injected["MLflow away"] += 1
        return lines(out)

    @contextmanager
    def _started(
        self, out: Path, variables: Mapping[str, str] | None = None, **changes: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Starts a search in a process of its own, and counts the processes that it leaves."""
        out.mkdir(parents=True, exist_ok=True)
        mark = uuid.uuid4().hex
        given = settings(out, **changes).model_dump_json()
        with (out / "log").open("ab") as log:
            env = os.environ | {_MARK: mark} | (variables or {})
            driver = subprocess.Popen([sys.executable, "-c", _SCRIPT, given], stdout=log, stderr=log, env=env)
            yield driver
            driver.wait()
        wait_until(lambda: not marked(mark), _WAIT_S)
        self.wrong["orphans"] += len(marked(mark))


def settings(out: Path, **changes: Any) -> SearchSettings:
    """The study, in a folder."""
    return SearchSettings(**(_SETTINGS | {"out": str(out)} | changes))


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


def measure(rounds: int, kinds: tuple[str, ...] = KINDS, seed: int = 0) -> dict[str, Any]:
    """Runs rounds of each kind.

    Returns:
        Plain JSON types: ``rounds``, ``injected`` by kind, and what went wrong: ``lost`` and ``twice`` are
        evaluations, ``orphans`` processes, ``other_fronts`` studies, ``failed`` rounds that ended in another way
        than is promised. ``losses`` is their sum.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), seed)
        for _ in range(rounds):
            for kind in kinds:
                bench.round(kind)
                print(kind, dict(bench.wrong), file=sys.stderr)
    return {
        "rounds": rounds * len(kinds),
        "injected": dict(bench.injected),
        **bench.wrong,
        "losses": bench.wrong.total(),
        "seconds": round(time.monotonic() - started),
    }


def main() -> int:
    """Prints what was injected and lost; returns 1 if anything was lost."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=50, help="of each kind")
    parser.add_argument("--kinds", default=",".join(KINDS), help="with commas")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    found = measure(options.rounds, tuple(options.kinds.split(",")), options.seed)
    print(json.dumps(found, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in found.items()))
    return int(found["losses"] > 0)


if __name__ == "__main__":
    sys.exit(main())
