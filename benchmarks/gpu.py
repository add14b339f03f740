"""What schedules save on real hardware: ``python -m benchmarks.gpu -o gpu.json`` on a machine with a GPU.

Networks of the full size get random bfloat16 weights on the device itself: latency does not depend on the values.
Text encoders are left out; conditioning is random, too. Rows come in groups, the most valuable first, and the file
is whole after every row: FLUX.1-dev's baseline beside its stock pipeline, step reduction and two presets, single
steps by stage size and batch, decoding and scoring, compiled steps, and single steps of Wan 2.1 1.3B. What is
compared is timed in turn. ``--small`` runs the same code with networks of a few blocks, in seconds on a CPU, whose
seconds are those of the process in one thread. ``--table`` prints a finished file as Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

GROUPS = ("baseline", "schedules", "steps", "whole", "compiled", "wan")
"""Groups of rows, the methods of ``benchmarks.gpu_rows.Rows``, in the order in which they run."""


def log(text: str) -> None:
    """Says on stderr what is being measured."""
    print(text, file=sys.stderr, flush=True)


class Recorder:
    """Measures rows and writes all of them to one JSON file after each.

    Args:
        path: The file.
        about: What the file says beside the rows.
        deadline: Seconds after which no row is begun.
    """

    def __init__(self, path: Path, about: Row, deadline: float):
        self._path, self._deadline, self._start = path, deadline, time.monotonic()
        self.result: Row = about | {"rows": []}

    def add(self, name: str, measure: Callable[[], Row]) -> None:
        """Measures a row; what keeps it from being measured is its result then, and the next row goes on."""
        import torch

        began = time.monotonic() - self._start
        log(f"{began:6.1f} s  {name}")
        try:
            row = measure() if began < self._deadline else {"left_out": f"{self._deadline:g} s were over"}
        except torch.OutOfMemoryError:
            row = {"left_out": "does not fit into the memory"}
        except ImportError as error:
            row = {"left_out": f"{error.name or error} is not installed"}
        except Exception as error:
            traceback.print_exc()
            row = {"failed": f"{type(error).__name__}: {error}"}
        took = time.monotonic() - self._start - began
        self.result["rows"].append({"name": name} | row | {"began_s": round(began, 1), "took_s": round(took, 1)})
        self._write()

    def _write(self) -> None:
        beside = self._path.with_suffix(".part")
        beside.write_text(json.dumps(self.result, indent=2) + "\n")
        os.replace(beside, self._path)

    @property
    def failed(self) -> bool:
        """Whether a row failed, or our latents are not the stock pipeline's."""
        return any("failed" in row or row.get("latents_close") is False for row in self.result["rows"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is asked for; 0 if no row failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--rows", nargs="+", choices=GROUPS, default=GROUPS, help="groups of rows (default: all)")
    parser.add_argument("--no-compile", action="store_true", help="leave compiled steps out")
    parser.add_argument("--deadline", type=float, default=float("inf"), help="seconds; no row begins later")
    parser.add_argument("--device", help="torch device (default: cuda, where there is one)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the median is taken (default: 3)")
    parser.add_argument("--small", action="store_true", help="networks of a few blocks, to prove the script")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of a finished file instead")
    options = parser.parse_args(arguments)
    if options.table:
        from benchmarks.gpu_table import table

        print(table(json.loads(options.table.read_text())))
        return 0

    import torch

    from benchmarks.gpu_rows import Rows
    from tuner.invariance import one_thread

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu" and not options.small:
        parser.error("full-size networks need a GPU; run with --small to prove the script on a CPU.")
    recorder = Recorder(options.output, _about(device, options.small), options.deadline)
    rows = Rows(recorder.add, device, options.small, options.repeats)
    with contextlib.nullcontext() if device.startswith("cuda") else one_thread():
        for group in GROUPS:
            if group in options.rows and not (group == "compiled" and options.no_compile):
                getattr(rows, group)()
    return int(recorder.failed)


def _about(device: str, small: bool) -> Row:
    import diffusers
    import torch
    import transformers

    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "small": small,
        "versions": {module.__name__: module.__version__ for module in (torch, diffusers, transformers)},
    }


if __name__ == "__main__":
    sys.exit(main())
