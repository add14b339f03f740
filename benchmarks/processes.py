"""Finds processes on this machine, for benchmarks that kill them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


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


def name_of(process: int) -> str:
    """Returns what a process calls itself, or nothing if it is gone."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def processes(root: int, name: str) -> list[int]:
    """Finds the descendants of a process whose program begins with a name, whatever folder it is in."""
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
            program = Path(f"/proc/{process}/cmdline").read_text().partition("\0")[0]
            if above == root and program.rpartition("/")[2].startswith(name):
                found.append(process)
        except OSError:
            continue
    return found
