"""``tuner ui``: the MLflow UI on the local store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path

import click

from tuner.cli._common import out_option
from tuner.errors import UserError

_START_TIMEOUT_S = 120.0
_EXAMPLES = """\b
Examples:
  tuner ui
  tuner ui --out /data/runs --port 5001 --no-open
"""


@click.command(help="Opens the MLflow UI on the studies in DIR; Ctrl-C stops it.\n\n" + _EXAMPLES)
@out_option
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port on 127.0.0.1.")
@click.option("--open/--no-open", "open_browser", default=True, help="Open a browser when the server answers.")
def command(out: str, port: int, open_browser: bool) -> None:
    """Runs MLflow's own server in the foreground, on loopback alone."""
    store = Path(out).resolve() / "mlflow.db"
    if not store.is_file():
        raise UserError(f"Folder {out!r} holds no tracked studies ({store.name} is missing); run a search first.")
    url = f"http://127.0.0.1:{port}"
    click.echo(f"MLflow UI on {url} (Ctrl-C stops it)", err=True)
    address = ("--host", "127.0.0.1", "--port", str(port))
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{store}", *address],
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=sys.stderr,
    )
    if open_browser:
        threading.Thread(target=_open_when_ready, args=(url, server), daemon=True).start()
    try:
        code = server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        raise
    sys.exit(code)


def _open_when_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            webbrowser.open(url)
            return
