"""A PostgreSQL server of one's own, on this machine alone, as long as a benchmark or a test needs it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_ACCOUNT = "postgres"  # the server refuses to run as root


def is_here() -> bool:
    """Whether the server's programs and its driver for Python are installed."""
    return all(map(shutil.which, ("initdb", "pg_ctl"))) and importlib.util.find_spec("psycopg2") is not None


@contextmanager
def server() -> Iterator[tuple[str, Callable[[], None]]]:
    """Runs a server.

    Yields:
        The URL of its database, and what restarts it as after a crash.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        account = _ACCOUNT if os.getuid() == 0 else None
        if account:
            shutil.chown(folder, account)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = f"-h 127.0.0.1 -p {port} -k {folder} -F"

        def run(*command: str) -> None:
            subprocess.run(command, user=account, cwd=folder, check=True, stdout=subprocess.DEVNULL)

        def control(*command: str) -> None:
            run("pg_ctl", "-D", str(data), "-w", "-l", f"{folder}/log", "-o", options, *command)

        run("initdb", "-D", str(data), "-U", "tuner", "--auth=trust", "-N")
        control("start")
        try:
            url = f"postgresql+psycopg2://tuner@127.0.0.1:{port}/postgres"
            yield url, lambda: control("restart", "-m", "immediate")
        finally:
            control("stop", "-m", "immediate")
