"""A GPU that runs out of memory: what is caught, and that the memory is there again after it."""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import objectives
from benchmarks.gpu import Recorder
from tests.gpu.mid_size import mid_size
from tuner.models import blueprint
from tuner.sampling import sample

SPARE = 2 * 2**30  # bytes


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """Leaves the process ``SPARE`` beside what it holds when the context begins."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + SPARE) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_a_row_that_does_not_fit_says_so_and_the_next_one_runs(gpu: str, tmp_path: Path) -> None:
    made = mid_size("flux", gpu)

    def row(batch: int, side: int) -> dict[str, float]:
        latents = sample(made.model, made.known.plain(1), made.text(batch), range(batch), (side, side))
        return {"seconds": float(latents.isfinite().all())}

    recorder = Recorder(tmp_path / "gpu.json", {}, deadline=60)
    with little_memory():
        recorder.add("16 images", lambda: row(16, 2048))
        recorder.add("1 image", lambda: row(1, 512))
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [row.get("left_out", row.get("seconds")) for row in rows] == ["does not fit into the memory", 1.0]


def test_a_task_that_does_not_fit_runs_in_halves(gpu: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from studies.work.evaluator import Evaluator
    from studies.work.task import ChunkResult, Task

    model = blueprint("tiny").load(gpu)
    velocity, batches = model.velocity, []

    def hungry(x_BCHW: torch.Tensor, *rest: Any) -> torch.Tensor:
        torch.empty(len(x_BCHW), SPARE // 12, dtype=torch.uint8, device=gpu)
        batches.append(len(x_BCHW))
        return velocity(x_BCHW, *rest)

    task = Task(blueprint("tiny").plain(2), ("red circle on plain black",) * 16, tuple(range(16)), (64, 64))
    evaluator = Evaluator(model, [objectives.load("clip:tiny", gpu)])
    whole = evaluator.evaluate(task)
    monkeypatch.setattr(model, "velocity", hungry)
    with little_memory():
        parts = evaluator.evaluate(task)
    assert isinstance(whole, ChunkResult)
    assert isinstance(parts, ChunkResult)
    assert batches == [8] * 4  # two steps of each half
    assert parts.scores["clip"] == pytest.approx(whole.scores["clip"], abs=0.5)
