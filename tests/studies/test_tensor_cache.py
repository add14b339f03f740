"""The cache that gives large tensors of a GPU to the machine's memory; the CPU stands for the GPU here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from studies.work import tensor_cache
from studies.work.evaluator import Evaluator
from studies.work.reuse import LIMIT, LimitedCache, tensor_bytes
from studies.work.tensor_cache import LARGE, TensorCache
from tests.studies.test_evaluation import SCHEDULE, finished, task
from tests.studies.toy import Brightness, CountingModel
from tuner.models import blueprint

Pretend = Callable[[str], list[torch.Tensor]]

PROMPTS = 32  # of a search


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Takes a device for a GPU, and collects what is taken off it."""

    def pretend(kind: str) -> list[torch.Tensor]:
        taken: list[torch.Tensor] = []
        monkeypatch.setattr(tensor_cache, "gpu_of", lambda value: torch.device(kind))
        monkeypatch.setattr(tensor_cache, "_to_host", lambda tensor: (taken.append(tensor), tensor.clone())[1])
        return taken

    return pretend


@pytest.mark.parametrize("name", ["hunyuan-video", "hunyuan-video-1.5", "wan2.1-1.3b", "wan2.2", "ltx2"])
def test_latents_of_all_prompts_of_a_search_have_room(
    name: str, gpu: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latents after a first stage, and first velocities of two more; the GPU holds small ones alone."""
    monkeypatch.setattr(tensor_cache, "machine_bytes", lambda: 128 * 2**30)
    taken = gpu("meta")
    known = blueprint(name)
    cache = TensorCache()
    keys = [(prompt, kind) for prompt in range(PROMPTS) for kind in range(3)]
    latents = [torch.empty(1, *known.latent_shape(known.size), device="meta") for _ in keys]
    for key, value in zip(keys, latents, strict=True):
        cache.keep(key, value)
    assert all(key in cache for key in keys)
    assert len(taken) == sum(value.nbytes >= LARGE for value in latents)


def test_a_gpu_alone_had_no_room_for_them() -> None:
    known = blueprint("hunyuan-video")
    before = LimitedCache(LIMIT)
    for key in range(3 * PROMPTS):
        before.keep(key, torch.empty(1, *known.latent_shape(known.size), device="meta"))
    assert 0 not in before


def test_workers_of_one_machine_take_a_part_of_its_memory(gpu: Pretend, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu("meta")
    monkeypatch.setattr(tensor_cache, "machine_bytes", lambda: 32 * 3 * LARGE)
    cache = TensorCache()
    for key in range(5):
        cache.keep(key, torch.empty(LARGE, dtype=torch.uint8, device="meta"))
    assert [key in cache for key in range(5)] == [False, False, True, True, True]


def test_what_is_small_stays_on_the_gpu(gpu: Pretend) -> None:
    taken = gpu("cpu")
    cache = TensorCache()
    small = torch.zeros(LARGE // 4 - 1)
    assert cache.keep("small", small) is cache.get("small") is small
    assert taken == []


def test_what_was_taken_off_comes_back_bit_by_bit(gpu: Pretend) -> None:
    taken = gpu("cpu")
    cache = TensorCache()
    rows = {"tokens": torch.randn(LARGE // 4), "mask": torch.ones(3, dtype=torch.bool)}
    assert cache.keep("text", rows) is rows
    found = cache.get("text")
    assert found.keys() == rows.keys()
    for name, tensor in rows.items():
        assert found[name].data_ptr() != tensor.data_ptr()
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    assert len(taken) == 2
    cache.clear()
    assert "text" not in cache
    assert cache.get("text") is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="memory can be pinned here")
def test_memory_that_cannot_be_pinned_is_used_as_it_is() -> None:
    tensor = torch.randn(5)
    assert torch.equal(tensor_cache._to_host(tensor), tensor)


def test_a_worker_draws_the_same_from_what_waits_in_the_machines_memory(
    gpu: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn() -> tuple[list[Any], int]:
        model = CountingModel()
        evaluator = Evaluator(model, [Brightness()])
        results = [finished(evaluator.evaluate(task(schedule=SCHEDULE))) for _ in range(2)]
        return [(one.scores, one.images, one.kept_stages) for one in results], model.calls

    expected = drawn()
    taken = gpu("cpu")
    monkeypatch.setattr(tensor_cache, "LARGE", 1)
    assert drawn() == expected
    assert sum(map(tensor_bytes, taken)) > 0
