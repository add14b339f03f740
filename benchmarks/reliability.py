"""What a study loses when things go wrong: ``python -m benchmarks.reliability --json``.

Runs small studies of `tiny`, disturbs each as often as it lasts, and resumes it. In the end every evaluation that
was finished before must be there, each once; no process may be left; and the front must be the undisturbed one.

- `driver`: SIGKILL of the search
- `workers`: SIGKILL of its Ray worker, while the search goes on
- `both`: SIGKILL of a worker, then of the search
- `raylet`, `gcs`: SIGKILL of a process of Ray, which may end the search
- `node`: a node of a cluster of two is lost, and another one comes
- `hang`, `die`, `exhaust`: a task in a Ray worker hangs, kills its worker, or runs out of memory
- `race`: two searches start the same new study, a random moment apart
- `disk`: the disk is full at a random evaluation (the write fails with ENOSPC)
- `mlflow`: the MLflow server that shows the search is killed and started again
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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import postgresql
from benchmarks.bad_luck import VARIABLE
from benchmarks.mlflow_server import mlflow_server
from benchmarks.reliability_study import (
    LONG,
    NOT_LOGGED,
    SMALL,
    Sitting,
    evaluations,
    front,
    kill,
    lines,
    logged_once,
    settings,
    sitting,
    twice,
)
from studies import search
from studies.records import score_log
from tuner.errors import UserError

COUNTS = dict.fromkeys(("driver", "workers", "race"), 50) | {
    **dict.fromkeys(("both", "disk"), 20),
    **dict.fromkeys(("raylet", "gcs", "node", "mlflow", "postgresql"), 10),
    **dict.fromkeys(("hang", "die", "exhaust"), 3),
}
"""How often each thing happens by default."""

_TASK_S = 30.0
"""Seconds after which a task counts as hanging."""
_LONGEST_S = 600.0
"""Seconds that a search may take to its next evaluation, or to its end."""


class Bench:
    """Disturbs studies in a folder and counts what went wrong.

    Args:
        folder: For the studies.
        seed: Of the moments.
        long: Settings of studies that are disturbed more than once.
    """

    def __init__(self, folder: Path, seed: int, long: Mapping[str, Any] = LONG):
        self._folder = folder
        self._long = dict(long)
        self._rng = random.Random(seed)
        self._undisturbed: dict[int, Path] = {}
        self._seen: list[bytes] = []
        self._studies = 0
        self.sittings = 0
        self.injected: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter(
            dict.fromkeys(("lost", "twice", "orphans", "other_fronts", "failed"), 0)
        )

    def inject(self, kind: str, count: int) -> None:
        """Does one bad thing so many times, in as many studies as that takes, and lets each study finish."""
        ways: dict[str, Callable[[Path, str, int], Mapping[str, Any]]] = {
            "workers": self._kill_workers,
            "node": self._lose_nodes,
            **dict.fromkeys(("hang", "die", "exhaust"), self._bad_task),
            "race": self._race,
            "disk": self._fill,
            "mlflow": self._restart_mlflow,
            "postgresql": self._restart_postgresql,
        }
        if kind == "postgresql" and not postgresql.is_here():
            return
        before = -1
        while before < self.injected[kind] < count:  # a study in which nothing happened ends the kind
            before = self.injected[kind]
            self._studies += 1
            out = self._folder / f"{self._studies}-{kind}"
            self._seen = []
            values = ways.get(kind, self._kill)(out, kind, count)
            self._look(out)
            search(
                settings(out, {**values, "workers": 0}), resume=True
            )  # also a study that is over: then nothing may change
            self._look(out)
            self._compare(out, values)

    def _compare(self, out: Path, values: Mapping[str, Any]) -> None:
        """Compares a finished study with one that nobody disturbed."""
        plain = {name: values[name] for name in SMALL} | {"workers": 0}
        prompts = plain["search_prompts"]
        if prompts not in self._undisturbed:
            self._undisturbed[prompts] = self._folder / f"undisturbed-{prompts}"
            search(settings(self._undisturbed[prompts], plain))
        alone, found = self._undisturbed[prompts], lines(out)
        self.wrong["twice"] += twice(found)
        self.wrong["lost"] += len(evaluations(lines(alone)) - evaluations(found))
        self.wrong["other_fronts"] += front(out) != front(alone)

    def _look(self, out: Path) -> None:
        """Counts lines of the last look that are no more where they were."""
        now = lines(out)
        same = sum(one == other for one, other in zip(self._seen, now, strict=False))
        self.wrong["lost"] += len(self._seen) - same
        self._seen = now

    def _disturb(
        self,
        out: Path,
        kind: str,
        count: int,
        values: Mapping[str, Any],
        strike: Callable[[Sitting], int],
        codes: Sequence[int] = (),
    ) -> None:
        """Strikes a study again and again, soon after an evaluation each time, until the study is over.

        Args:
            out: Folder of the study.
            kind: What the strikes count as.
            count: How many there may be.
            values: Settings of the study.
            strike: Does something bad; returns how many times.
            codes: How the search may end that goes on under all strikes; empty if each may end it, so that it is
                started again.
        """
        before, code = -1, None
        while code != 0 and before < self.injected[kind] < count:
            before = self.injected[kind]
            with self._sitting(out, values) as one:
                while self.injected[kind] < count and one.reaches(out, len(lines(out)) + 1, _LONGEST_S):
                    time.sleep(self._rng.uniform(0, 0.3))
                    self._look(out)
                    self.injected[kind] += strike(one)
                    if not codes:
                        break
                code = self._code(one)
            self._look(out)
            if codes:
                self.wrong["failed"] += code not in codes
                return

    @contextmanager
    def _sitting(
        self, out: Path, values: Mapping[str, Any], variables: Mapping[str, str] | None = None
    ) -> Iterator[Sitting]:
        with sitting(out, values, variables) as one:
            yield one
        self.sittings += 1
        self.wrong["orphans"] += len(one.left)
        for name in one.left:
            print(f"left: {name}", file=sys.stderr)

    def _code(self, one: Sitting) -> int:
        """Waits for a search, which is killed and counts as failed when it hangs."""
        try:
            return one.driver.wait(_LONGEST_S)
        except subprocess.TimeoutExpired:
            self.wrong["failed"] += 1
            one.driver.kill()
            return one.driver.wait()

    def _kill(self, out: Path, kind: str, count: int) -> Mapping[str, Any]:
        """Kills the search, processes of Ray, or first the one and then the other."""
        values = self._long | {"workers": 0 if kind == "driver" else 1}

        def strike(one: Sitting) -> int:
            victims = kill(one, kind) if kind != "driver" else 0
            if kind in ("driver", "both"):
                one.driver.send_signal(signal.SIGKILL)
                return 1
            return victims

        self._disturb(out, kind, count, values, strike)
        return values

    def _kill_workers(self, out: Path, kind: str, count: int) -> Mapping[str, Any]:
        values = self._long | {"workers": 1}
        self._disturb(out, kind, count, values, lambda one: kill(one, kind), (0,))
        return values

    def _lose_nodes(self, out: Path, kind: str, count: int) -> Mapping[str, Any]:
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes = [cluster.add_node(num_cpus=1)]

        def strike(one: Sitting) -> int:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            nodes.append(cluster.add_node(num_cpus=1))
            return 1

        try:
            cluster.wait_for_nodes()
            values = self._long | {"workers": 2, "ray_address": cluster.address}
            self._disturb(out, kind, count, values, strike, (0,))
        finally:
            cluster.shutdown()
        return self._long | {"workers": 0}

    def _bad_task(self, out: Path, kind: str, count: int) -> Mapping[str, Any]:
        out.mkdir(parents=True)
        values = SMALL | {"workers": 1, "task_timeout": _TASK_S}
        with self._sitting(out, values, {VARIABLE: f"{kind}:{out / 'happened'}"}) as one:
            code = self._code(one)
        self.wrong["failed"] += code != 0 and kind != "exhaust"  # a baseline without memory ends the search
        self.injected[kind] += (out / "happened").exists()
        return values | {"workers": 0}

    def _race(self, out: Path, kind: str, count: int) -> Mapping[str, Any]:
        values = SMALL | {"workers": 0}
        with self._sitting(out, values) as first:
            time.sleep(self._rng.uniform(0, 3))
            with self._sitting(out, values) as second:
                codes = [self._code(first), self._code(second)]
        self.injected[kind] += 1
        self.wrong["failed"] += 0 not in codes  # one of them finishes; the other is refused, or comes after it
        return values

    def _fill(self, out: Path, kind: str, count: int) -> Mapping[str, Any]:
        values, room = self._long | {"workers": 0}, 0

        def append(path: Path, content: bytes) -> None:
            nonlocal room
            room -= 1
            if room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(path, content)

        write, score_log.append = score_log.append, append
        try:
            over = False
            while not over and self.injected[kind] < count:
                room = self._rng.randrange(10)
                try:
                    search(settings(out, values), resume=True)
                    over = True
                except UserError:
                    self.injected[kind] += 1
                self._look(out)
        finally:
            score_log.append = write
        return values

    def _restart_mlflow(self, out: Path, kind: str, count: int) -> Mapping[str, Any]:
        with mlflow_server(out.parent / f"{out.name}.db", out.parent / f"{out.name}-artifacts") as server:
            values = self._long | {"workers": 0, "tracking_uri": server.url}

            def strike(one: Sitting) -> int:
                server.restart()
                return 1

            self._disturb(out, kind, count, values, strike, (0, NOT_LOGGED))
            with self._sitting(out, values) as last:
                self.wrong["failed"] += self._code(last) != 0  # what the server missed, it gets now
            self.wrong["failed"] += not logged_once(out, server.url)
        return self._long | {"workers": 0}

    def _restart_postgresql(self, out: Path, kind: str, count: int) -> Mapping[str, Any]:
        with postgresql.server() as (url, restart):
            values = self._long | {"workers": 0, "storage": url}

            def strike(one: Sitting) -> int:
                restart()
                return 1

            self._disturb(out, kind, count, values, strike)
            search(settings(out, values), resume=True)
        return self._long | {"workers": 0}


def measure(counts: Mapping[str, int], seed: int = 0) -> dict[str, Any]:
    """Injects each kind of disturbance so many times.

    Returns:
        Plain JSON types: ``rounds`` is the number of searches that were started, ``injected`` what happened to
        them. ``lost`` and ``twice`` are evaluations, ``orphans`` processes, ``other_fronts`` studies, ``failed``
        searches that ended in another way than is promised. ``losses`` is their sum.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), seed)
        for kind, count in counts.items():
            bench.inject(kind, count)
            passed = round(time.monotonic() - started)
            print(f"{kind}: {bench.injected[kind]}, {dict(bench.wrong)}, {passed} s", file=sys.stderr, flush=True)
    return {
        "rounds": bench.sittings,
        "injected": {kind: bench.injected[kind] for kind in counts},
        **bench.wrong,
        "losses": bench.wrong.total(),
        "seconds": round(time.monotonic() - started),
    }


def main() -> int:
    """Prints what was injected and lost; returns 1 if anything was lost."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability", description=__doc__.partition("\n")[0]
    )
    parser.add_argument(
        "--kinds",
        default=",".join(f"{kind}:{count}" for kind, count in COUNTS.items()),
        help="KIND or KIND:COUNT, with commas; by default %(default)s",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    asked = (kind.partition(":") for kind in options.kinds.split(","))
    found = measure({kind: int(count or COUNTS[kind]) for kind, _, count in asked}, options.seed)
    print(json.dumps(found, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in found.items()))
    return int(found["losses"] > 0)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
