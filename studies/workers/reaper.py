"""Ends what Ray started on this machine when its driver is gone, however the driver went.

The kernel ends Ray's own processes with their driver, but not the agents that the raylet starts: a killed driver
leaves them for a minute, while they try to tell Ray's dead server. A small process of its own waits for the end of
the driver and kills them. It reads `/proc`, so it does nothing where there is none (macOS).
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
from pathlib import Path

_QUIET_LOOKS = 12  # a process that was just being started is found late
_PAUSE_S = 0.25


@functools.cache
def mark() -> dict[str, str]:
    """Starts the process that waits for the end of this one, once.

    Returns:
        The variable that all of Ray's processes must inherit: it is how they are found.
    """
    name = f"TUNER_DRIVER_{os.getpid()}_{os.urandom(8).hex()}"
    command = [sys.executable, "-I", "-S", __file__, name, str(os.getpid())]
    pipe, _ = os.pipe()  # the other end stays open, here alone, until the kernel closes it
    silent = [(os.POSIX_SPAWN_OPEN, out, os.devnull, os.O_WRONLY, 0) for out in (1, 2)]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, pipe, 0), *silent])
    os.close(pipe)
    return {name: "1"}


def kill(name: str) -> int:
    """Kills all processes that were started with a variable; returns how many there were."""
    found = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if f"{name}=".encode() in (entry / "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
                found += 1
    return found


def _main() -> None:
    os.setsid()  # what is typed in the driver's terminal is not for this process
    sys.stdin.read()  # until the driver ends, or closes its end early
    while os.getppid() == int(sys.argv[2]):
        time.sleep(_PAUSE_S)
    quiet = 0
    while quiet < _QUIET_LOOKS:
        quiet = 0 if kill(sys.argv[1]) else quiet + 1
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    _main()
