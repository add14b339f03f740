"""``tuner doctor``: what this machine can do."""

from __future__ import annotations

import os
import platform
import urllib.error
import urllib.request
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from tuner.cli._common import json_option, out_option, print_json, print_table
from tuner.tables import Cells

_PACKAGES = ("torch", "diffusers", "transformers", "optuna", "ray", "mlflow", "open-clip-torch")
_HUB_TIMEOUT_S = 3.0
_EXAMPLES = """\b
Examples:
  tuner doctor
  tuner doctor --out /data/runs --json      can studies be saved there?
"""


@click.command(help="Reports versions, memory, GPUs and what can be reached.\n\n" + _EXAMPLES)
@out_option
@json_option
def command(out: str, as_json: bool) -> None:
    """Collects the facts and prints them."""
    facts = _facts(out)
    if as_json:
        print_json(facts)
        return
    rows = [(name, _readable(value)) for name, value in facts.items() if name != "versions"]
    header = ["what", "found"]
    print_table(Cells(header, [*rows, *facts["versions"].items()], key=header))


def _facts(out: str) -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "gpus": [{"name": gpu.name, "memory_gb": round(gpu.total_memory / 1e9, 1)} for gpu in gpus],
        "hub_access": _hub_access(),
        "out_writable": _writable(out),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _memory_gb() -> float | None:
    from tuner.memory import machine_bytes

    size = machine_bytes()
    return None if size is None else round(size / 1e9, 1)


def _hub_access() -> bool:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


def _writable(folder: str) -> bool:
    existing = os.path.abspath(folder)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    return os.path.isdir(existing) and os.access(existing, os.W_OK)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _readable(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(f"{gpu['name']} ({gpu['memory_gb']} GB)" for gpu in value) or "none"
    return str(value)
