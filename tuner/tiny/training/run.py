"""What every training run shares: worker processes, a budget, a log and checkpoints."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

CHECKPOINT_SECONDS = 120
WORKER_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads would starve the other worker
    "MALLOC_MMAP_THRESHOLD_": "1000000000",  # keep freed activations: page faults cost more than the maths
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
}


def half_precision() -> AbstractContextManager[None]:
    """Computes in bfloat16 where this CPU can; where it is emulated, it is eight times slower than float32."""
    native = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.autocast("cpu", torch.bfloat16, enabled=native)


@dataclass(frozen=True)
class Settings:
    """What a training command is told.

    Attributes:
        work: Folder for data, checkpoints and the log.
        minutes: Wall-clock budget; time before an interruption counts.
        steps: Stop after this many optimiser steps if the minutes last that long; None for no such limit.
        workers: Data-parallel processes of one thread each. On a CPU they beat as many threads in one process.
        seed: Seed of weights, scenes and batches. With a time budget the number of steps, and so the result,
            still depends on the machine.
    """

    work: Path
    minutes: float
    steps: int | None
    workers: int
    seed: int


class Worker:
    """One training process among ``settings.workers``, with the clock that they share."""

    def __init__(self, settings: Settings, rank: int, name: str) -> None:
        self.settings = settings
        self.rank = rank
        self.step = 0
        self._name = name
        self._spent = 0.0  # seconds in earlier, interrupted processes
        self._started = time.monotonic()
        self._saved = self._started
        self._printed = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, interrupted processes included."""
        return self._spent + time.monotonic() - self._started

    def progress(self) -> float:
        """Share of the budget that is spent, 1 or more when training is over; equal on all workers."""
        share = self.elapsed / (60 * self.settings.minutes)
        if self.settings.steps is not None:
            share = max(share, self.step / self.settings.steps)
        return self.shared(share)

    def shared(self, value: float) -> float:
        """Returns the first worker's value on every worker."""
        box = torch.tensor([value], dtype=torch.float64)
        if self.settings.workers > 1:
            dist.broadcast(box, 0)
        return float(box)

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replaces each gradient by its mean over the workers, in one message."""
        if self.settings.workers == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.settings.workers
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def log(self, **record: object) -> None:
        """Appends one line to ``log.jsonl`` and shows it, from the first worker only."""
        if self.rank != 0:
            return
        line = {"run": self._name, "step": self.step, "seconds": round(self.elapsed, 1), **record}
        with (self.settings.work / "log.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), file=sys.stderr, flush=True)  # noqa: T201

    def every(self, seconds: float) -> bool:
        """True once per so many seconds of training; the same answer on all workers."""
        due = bool(self.shared(float(self.elapsed - self._printed >= seconds)))
        if due:
            self._printed = self.elapsed
        return due

    @property
    def checkpoint(self) -> Path:
        """The file that this run resumes from."""
        return self.settings.work / f"{self._name}.checkpoint.pt"

    def resume(self) -> dict[str, Any] | None:
        """Loads the checkpoint of an interrupted run, if there is one, and sets the clock by it."""
        if not self.checkpoint.exists():
            return None
        state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.step, self._spent = state.pop("step"), state.pop("elapsed")
        return state

    def save(self, state: Callable[[], dict[str, Any]], now: bool = False) -> None:
        """Writes a checkpoint every two minutes, or at once; an interrupted write leaves the old one."""
        if self.rank != 0 or not (now or time.monotonic() - self._saved > CHECKPOINT_SECONDS):
            return
        part = self.checkpoint.with_suffix(".part")
        torch.save({"step": self.step, "elapsed": self.elapsed, **state()}, part)
        part.replace(self.checkpoint)
        self._saved = time.monotonic()


def launch(name: str, settings: Settings, train: Callable[[Worker], None]) -> None:
    """Runs ``train`` in ``settings.workers`` processes of one thread each and waits for them."""
    settings.work.mkdir(parents=True, exist_ok=True)
    if settings.workers == 1:
        train(Worker(settings, 0, name))
        return
    for variable, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    rendezvous = settings.work / f"{name}.rendezvous"
    rendezvous.unlink(missing_ok=True)
    spawn(_worker, args=(name, settings, train, rendezvous), nprocs=settings.workers)  # type: ignore[no-untyped-call]


def _worker(rank: int, name: str, settings: Settings, train: Callable[[Worker], None], rendezvous: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=settings.workers)
    try:
        train(Worker(settings, rank, name))
    finally:
        dist.destroy_process_group()
