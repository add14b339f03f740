"""A whole search in a network of its own: it sends nothing outwards and listens on loopback alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.servers

_COMMAND = (
    "search --model tiny --budget 6x -n 0 --search-prompts 2 --held-out-prompts 2 --rungs 1 --workers 1"
    " --objectives image_reward --size 32"
)
_OUTSIDE = """
set -eu
echo "nameserver 10.99.0.2" > resolv.conf
mount --bind resolv.conf /etc/resolv.conf
ip link set lo up
ip link add outside type veth peer name nobody
for end in outside nobody; do echo 1 > /proc/sys/net/ipv6/conf/$end/disable_ipv6 || true; ip link set $end up; done
ip address add 10.99.0.1/24 dev outside
ip route add default via 10.99.0.2 dev outside
exec "$@"
"""
_WATCH = """
import json, re, subprocess, sys, threading
from pathlib import Path

LISTENS = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}


def sent():
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if "outside:" in line)
    return int(line.split(":")[1].split()[9])


def listening():
    for table, state in LISTENS.items():
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == state:
                yield fields[1].split(":")[0]


found, before, running = set(), sent(), subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
while running.poll() is None:
    found.update(listening())
    try:
        running.wait(0.05)
    except subprocess.TimeoutExpired:
        pass
print(json.dumps({"exit": running.returncode, "sent": sent() - before, "listening": sorted(found)}))
"""
_LOOPBACK = {
    "0100007F",
    "00000000000000000000000001000000",
    "0000000000000000FFFF00000100007F",  # 127.0.0.1 as an IPv6 address
}


def _own_network() -> list[str] | None:
    """Returns what runs a shell script in a network of its own, or None where that is not allowed."""
    command = ["unshare", "--map-root-user", "--net", "--mount"]
    if not shutil.which("unshare") or not shutil.which("ip"):
        return None
    probe = subprocess.run([*command, "ip", "link", "add", "outside", "type", "veth"], capture_output=True)
    return None if probe.returncode else command


def watched(folder: Path, *command: str) -> dict[str, object]:
    """Runs a command where every packet that leaves the machine is counted."""
    own_network = _own_network()
    if own_network is None:
        pytest.skip("needs `unshare` and `ip`, and the right to make a network namespace")
    offline = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "MLFLOW_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")
    variables = {name: value for name, value in os.environ.items() if name not in offline}
    variables["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    inside = ["sh", "-c", _OUTSIDE, "sh", sys.executable, "-c", _WATCH, *command]
    done = subprocess.run([*own_network, *inside], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    assert found["exit"] == 0, done.stderr
    return found


def test_a_search_with_local_weights_sends_nothing_and_listens_on_loopback(tmp_path: Path) -> None:
    found = watched(tmp_path, sys.executable, "-c", "from tuner.cli.main import main; main()", *_COMMAND.split())
    assert found["sent"] == 0
    assert isinstance(found["listening"], list)
    assert found["listening"], "Ray listens, so nothing was watched"
    assert set(found["listening"]) <= _LOOPBACK


def test_the_watch_sees_a_name_server_that_is_asked(tmp_path: Path) -> None:
    ask = "import socket\ntry: socket.getaddrinfo('huggingface.co', 443)\nexcept OSError: pass"
    assert watched(tmp_path, sys.executable, "-c", ask)["sent"]
