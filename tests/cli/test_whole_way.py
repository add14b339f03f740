"""README's whole way in a terminal of 80 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len

WIDTH = 80
COMMANDS = (
    "search --model tiny --budget 3x -n 1 --search-prompts 2 --held-out-prompts 2 --rungs 1 --workers 0"
    " --objectives image_reward",
    "studies",
    "report tiny-3x",
    "report tiny-3x -o report.html",
    'sample runs/tiny-3x/preset.yaml "red ring on plain gray" -o ring.png',
    "export tiny-3x --pick best:image_reward -o best.yaml",
    "export tiny-3x --format diffusers -o best.py",
    "eval best.yaml plain:4 --model tiny --limit 2 --objectives image_reward --workers 0",
)
_SCRIPT = """
import shlex, sys
from tuner.cli.main import main

for line in sys.argv[1:]:
    print(f"$ tuner {line}", flush=True)
    try:
        main(shlex.split(line))
    except SystemExit as stop:
        if stop.code:
            raise
"""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\\\)")


@pytest.mark.servers
def test_no_line_is_wider_than_the_terminal(tmp_path: Path) -> None:
    shown = in_terminal([sys.executable, "-c", _SCRIPT, *COMMANDS], tmp_path)
    said = [line for line in re.split(r"[\r\n]+", _CONTROL.sub("", shown)) if not line.startswith("$ ")]
    assert [line for line in said if cell_len(line) > WIDTH] == []
    assert [line for line in said if "Traceback" in line or "Warning" in line] == []
    assert {path.name for path in tmp_path.iterdir()} >= {"report.html", "ring.png", "best.yaml", "best.py"}


def in_terminal(command: list[str], folder: Path) -> str:
    """Runs a command in a pseudo-terminal; returns everything that it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
    environment = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
    }
    process = subprocess.Popen(
        command, cwd=folder, env=environment | {"TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the last process has closed its end
            break
        written += part
    os.close(ours)
    assert process.wait() == 0, written.decode(errors="replace")
    return written.decode()
