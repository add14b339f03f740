"""A real MLflow server on loopback, for tests and benchmarks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START_S = 300.0


class MlflowServer:
    """A server, which can be killed and started again at the same address.

    Args:
        store: The file of its SQLite database.
        artifacts: Folder of its artifacts.

    Attributes:
        url: Its address.
    """

    def __init__(self, store: Path, artifacts: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "1", "--backend-store-uri", f"sqlite:///{store}"),
            *("--artifacts-destination", str(artifacts)),
        ]
        self._start()

    def _start(self) -> None:
        """Starts the server and waits until it answers."""
        self._process = subprocess.Popen(
            self._command,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except OSError:
                if self._process.poll() is not None:
                    raise RuntimeError("the MLflow server did not start.") from None
                time.sleep(0.5)
        raise RuntimeError(f"the MLflow server did not answer within {_START_S:.0f} s.")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends the server and its workers with a signal."""
        os.killpg(self._process.pid, number)
        self._process.wait()

    def restart(self) -> None:
        """Kills the server and starts it again."""
        self.stop(signal.SIGKILL)
        self._start()


@contextmanager
def mlflow_server(store: Path, artifacts: Path) -> Iterator[MlflowServer]:
    """Runs a server."""
    server = MlflowServer(store, artifacts)
    try:
        yield server
    finally:
        server.stop()
