"""Ends what Ray started on this machine when its driver is gone, however the driver went.

The kernel ends Ray's own processes with their driver, but not the agents that the raylet starts: a killed driver
leaves them for a minute, while they try to tell Ray's dead server. A small process of its own waits for the end of
the driver and kills them. It reads `/proc`, so it does nothing where there is none (macOS).
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_QUIET_LOOKS = 12  # a process that was just being started is found late
_PAUSE_S = 0.25


@functools.cache
def watch() -> None:
    """Starts the process that waits for the end of this one, once."""
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid())]
    pipe, _ = os.pipe()  # the other end stays open, here alone, until the kernel closes it
    silent = [(os.POSIX_SPAWN_OPEN, out, os.devnull, os.O_WRONLY, 0) for out in (1, 2)]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, pipe, 0), *silent])
    os.close(pipe)


def of_session(driver: int) -> Iterator[int]:
    """Finds the processes of the Ray session that a driver started: each writes to a log in the session's folder.

    Ray names the folder by the driver's process. Names and environments do not serve: Ray overwrites both when it
    gives its agents a title.
    """
    log = re.compile(rf"/session_[\d_-]+_{driver}/")
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if any(_writes(file, log) for file in (entry / "fd").iterdir()):
                yield int(entry.name)


def _writes(file: Path, log: re.Pattern[str]) -> bool:
    return log.search(os.readlink(file)) is not None and bool(file.lstat().st_mode & stat.S_IWUSR)


def kill(driver: int) -> int:
    """Kills the processes of a driver's session; returns how many there were."""
    found = list(of_session(driver))
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return len(found)


def _main(driver: int) -> None:
    os.setsid()  # what is typed in the driver's terminal is not for this process
    sys.stdin.read()  # until the driver ends
    quiet = 0
    while quiet < _QUIET_LOOKS:
        quiet = 0 if kill(driver) else quiet + 1
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
