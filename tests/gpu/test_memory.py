"""A GPU that runs out of memory: what is caught, and that the memory is there again after it."""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import Recorder
from tests.gpu.mid_size import mid_size
from tuner.models import blueprint
from tuner.sampling import sample

SPARE = 2 * 2**30  # bytes
IMAGES = 384


@contextlib.contextmanager
def little_memory(spare: int = SPARE) -> Iterator[None]:
    """Leaves the process so many bytes beside what it holds when the context begins."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + spare) / total)
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


def test_a_task_that_does_not_fit_is_evaluated_in_parts(gpu: str) -> None:
    pytest.importorskip("cachetools")
    from studies.work.evaluator import Evaluator
    from studies.work.task import ChunkResult, Task

    evaluator = Evaluator.load("tiny", ["clip:tiny"], gpu)
    known = blueprint("tiny")
    task = Task(known.plain(2), tuple(["red circle on plain black"] * IMAGES), tuple(range(IMAGES)), known.size)
    whole = evaluator.evaluate(task)
    before = torch.cuda.memory_stats()["num_ooms"]
    with little_memory(spare=64 * 2**20):
        parts = evaluator.evaluate(task)
    assert torch.cuda.memory_stats()["num_ooms"] > before
    assert isinstance(whole, ChunkResult)
    assert isinstance(parts, ChunkResult)
    assert parts.scores["clip"] == pytest.approx(whole.scores["clip"], abs=0.5)


def test_large_latents_wait_in_pinned_memory_and_come_back(gpu: str) -> None:
    pytest.importorskip("cachetools")
    from studies.work.tensor_cache import LARGE, TensorCache

    cache = TensorCache()
    latents = torch.randn(LARGE // 4, device=gpu)
    expected, before = latents.cpu(), torch.cuda.memory_allocated()
    cache.keep("latents", latents)
    assert torch.cuda.memory_allocated() == before
    ((waiting, _),) = cache._host._kept.values()
    assert waiting.is_pinned()
    found = cache.get("latents")
    assert found.device == latents.device
    assert torch.equal(found.cpu(), expected)
