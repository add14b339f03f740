"""What a study loses when things go wrong: ``python -m benchmarks.reliability --json``.

Runs small studies of `tiny`, does something bad to each, and resumes it. In the end every evaluation that was
finished before must be there, each once; no process may be left; and the front must be the undisturbed one.

- `driver`: SIGKILL of the search
- `workers`: SIGKILL of a Ray worker, while the search goes on
- `both`: SIGKILL of a worker, then of the search
- `race`: two searches start the same new study, a random moment apart
- `disk`: the disk is full at a random evaluation (the write fails with ENOSPC)
- `mlflow`: no MLflow server answers
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studies import SearchSettings, search
from studies.records import score_log
from tuner.errors import UserError

KINDS = ("driver", "workers", "both", "race", "disk", "mlflow")
_SETTINGS: dict[str, Any] = {
    "model": "tiny",
    "budget": "6x",
    "size": (32, 32),
    "trials": 1,
    "objectives": ("image_reward",),
    "search_prompts": 2,
    "held_out_prompts": 2,
    "chunk": 1,
    "rungs": 1,
    "study": "study",
    "reuse": False,
}
_MARK = "TUNER_RELIABILITY_ROUND"
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
        before = {"disk": self._fill, "race": self._race, "mlflow": self._without_mlflow}.get(kind, self._kill)(
            out, kind
        )
        after = lines(out)
        self.wrong["lost"] += len(before) - sum(one == other for one, other in zip(before, after, strict=False))
        if not (out / "study" / "result.json").exists():
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
        """Kills a worker, the search, or first the one and then the other."""
        moment, on_ray = self._moment(), kind != "driver"
        with self._started(out, workers=int(on_ray)) as driver:
            wait_until(lambda: driver.poll() is not None or len(lines(out)) >= moment, _LONGEST_S)
            time.sleep(self._rng.uniform(0, 0.5))
            before = lines(out)
            if on_ray:
                for worker in processes(driver.pid, "ray::_Worker"):
                    os.kill(worker, signal.SIGKILL)
                    self.injected["SIGKILLs of workers"] += 1
            if kind != "workers" and driver.poll() is None:
                driver.send_signal(signal.SIGKILL)
                self.injected["SIGKILLs of drivers"] += 1
            elif driver.wait():
                self.wrong["failed"] += 1
        return before

    def _race(self, out: Path, kind: str) -> list[bytes]:
        with self._started(out, workers=0) as first:
            time.sleep(self._rng.uniform(0, 3))
            with self._started(out, workers=0) as second:
                codes = [first.wait(), second.wait()]
        self.injected["races of two drivers"] += 1
        self.wrong["failed"] += 0 not in codes  # one of them finishes; the other is refused, or comes after it
        return lines(out)

    def _without_mlflow(self, out: Path, kind: str) -> list[bytes]:
        with self._started(out, workers=0, tracking_uri="http://127.0.0.1:9") as driver:
            self.wrong["failed"] += driver.wait() != 3
        self.injected["MLflow away"] += 1
        return lines(out)

    @contextmanager
    def _started(self, out: Path, **changes: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Starts a search in a process of its own, and counts the processes that it leaves."""
        out.mkdir(parents=True, exist_ok=True)
        mark = uuid.uuid4().hex
        given = settings(out, **changes).model_dump_json()
        with (out / "log").open("ab") as log:
            variables = os.environ | {_MARK: mark}
            driver = subprocess.Popen(
                [sys.executable, "-c", _SCRIPT, given], stdout=log, stderr=log, env=variables
            )
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
    parsed = [json.loads(line) for line in found]
    return {(one["schedule"], tuple(one["prompts"]), tuple(one["seeds"])) for one in parsed}


def twice(found: list[bytes]) -> int:
    """How many evaluations were counted more than once."""
    return len(found) - len(evaluations(found))


def front(out: Path) -> Any:
    """The front of a finished study."""
    return json.loads((out / "study" / "result.json").read_text())["front"]


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    """Waits until something holds, at most for some time."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)


def marked(mark: str) -> list[int]:
    """Finds the processes that were started by a round, however they are called."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found


def processes(root: int, name: str) -> list[int]:
    """Finds the descendants of a process whose command line begins with a name."""
    parents, found = {}, []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    for process in parents:
        above: int | None = process
        while above in parents and above != root:
            above = parents[above]
        try:
            if above == root and Path(f"/proc/{process}/cmdline").read_bytes().startswith(name.encode()):
                found.append(process)
        except OSError:
            continue
    return found


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
