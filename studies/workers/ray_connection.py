"""Starts Ray on this machine, or joins a cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.records.environment import environment
from studies.workers import reaper
from studies.workers.cargo import Cargo
from tuner.errors import UserError, one_line

if TYPE_CHECKING:
    from ray.job_config import JobConfig

_KNOCK_S = 5.0

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray prints the death of a worker on stdout, where only results belong
}
LOCAL_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # binds every port to loopback instead of to all addresses
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait would starve the other workers
}
_PASSED = (
    *("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
    *("TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TORCH_HOME"),
)
"""Variables that workers on other nodes take from the driver, unless their node has its own."""


def passed_variables() -> dict[str, str]:
    """Returns the variables that workers take from the driver.

    They travel as arguments of a worker. Ray writes a `runtime_env` into its logs, and one of them is a password.
    """
    return {name: os.environ[name] for name in _PASSED if name in os.environ}


def take_variables(variables: Mapping[str, str]) -> None:
    """Sets those variables that this node does not set itself; before any library reads them."""
    os.environ.update(variables | os.environ)


def connect(address: str | None, workers: int | None, cargo: Cargo) -> bool:
    """Connects to Ray.

    Workers import nothing from the folder that the driver runs in, where a file may have the name of a package of
    ours: on a cluster they run in a folder that holds what ``cargo`` sends, and here in the driver's own.

    Args:
        address: Cluster to join; None to start Ray on this machine, reachable from it alone.
        workers: How many will run.
        cargo: What they need from this machine.

    Returns:
        Whether this process connected and must shut Ray down; False if it was connected before.

    Raises:
        UserError: If there is no cluster at the address.
        RuntimeError: If Ray does not start on this machine.
    """
    with environment(ENVIRONMENT | (LOCAL_ENVIRONMENT if address is None else {})), own_sigterm():
        import ray

        if ray.is_initialized():
            return False
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address is None:
            cores = max(workers or 0, os.cpu_count() or 1)
            alone: dict[str, Any] = {"include_dashboard": False, "job_config": _job_config()}
            try:
                reaper.watch()
                with _without_dashboard():
                    ray.init(address="local", num_cpus=cores, **alone, **quiet)
            except Exception as error:  # Ray gives its processes 30 s to start and then raises a bare Exception
                ray.shutdown()
                raise RuntimeError(
                    f"Ray did not start on this machine, which may be too busy ({one_line(error)}); try again, or "
                    "use `--workers 0` to evaluate in one process."
                ) from error
            return True
        try:
            knock(address)
            with tempfile.TemporaryDirectory() as folder:
                cargo.pack(Path(folder))
                ray.init(address=address, runtime_env={"working_dir": folder}, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"No Ray cluster answers at {address!r} ({one_line(error)}); start one with `ray start --head`, "
                "or leave --ray-address out to use this machine."
            ) from error
        return True


@contextlib.contextmanager
def _without_dashboard() -> Iterator[None]:
    """Keeps Ray from starting the process of its dashboard.

    It is started even without a dashboard, and asks a name server and addresses of clouds where it runs, even if
    nothing is to be reported. Ray has no option for that.
    """
    from ray._private.node import Node

    start = Node.start_api_server
    Node.start_api_server = lambda *_, **__: None
    try:
        yield
    finally:
        Node.start_api_server = start


def _job_config() -> JobConfig:
    """Makes a job whose workers do not import from the driver's folders.

    Ray has no option for that. It leaves the folders out where a job has a folder of its own, which would take two
    more seconds to set up.
    """
    from ray.job_config import JobConfig

    class OwnPath(JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:
            return True

    return OwnPath()


def knock(address: str) -> None:
    """Opens and closes a connection to ``HOST:PORT``: Ray itself tries a closed port for minutes.

    Raises:
        OSError: If nothing answers within seconds.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()


@contextlib.contextmanager
def own_sigterm() -> Iterator[None]:
    """Keeps what this process does at SIGTERM: Ray would exit at once, without saving or a word."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
