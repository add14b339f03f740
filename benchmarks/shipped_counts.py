"""Counts what ``tuner/counts.json`` ships: ``python -m benchmarks.shipped_counts``; ``--anew`` for all of it.

Every model of this package at its default size and at the stage sizes of the search spaces, with guidance, without
and as the shipped presets have it; and the feature caches that search spaces propose, at the default size. Of
memory, the weights and what works beside them at the default size.
"""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from search_spaces import stage_sizes
from search_spaces._guidance import unguided
from tuner import models, presets
from tuner.counts import SHIPPED, counted, hashed, key_of
from tuner.feature_cache import FeatureCache, PyramidAttentionBroadcast, TaylorSeerCache
from tuner.fits import with_tiling
from tuner.flops import count
from tuner.memory import Precision, key, weights, working
from tuner.models import Blueprint, ModelOptions, Size

_PROPOSED = (
    TaylorSeerCache(kind="taylorseer"),
    TaylorSeerCache(kind="taylorseer", lite=True),
    PyramidAttentionBroadcast(kind="pab", between=(0.0, 1.0)),
)

_COUNTED: tuple[Precision, ...] = ("float32", "bfloat16")

Counted = tuple[Blueprint, Size, FeatureCache | None]


def wanted() -> Iterator[Counted]:
    """Lists what is shipped, the default sizes first."""
    known = [models.blueprint(name) for name in models.available()]
    for model in known:
        yield model, model.size, None
    for model in known:
        yield unguided(model), model.size, None
    for preset in map(presets.load, presets.available()):
        if preset.model in models.available():
            model = models.blueprint(preset.model)
            guided = model.with_options(preset.model_options) if preset.model_options else model
            size = preset.height, preset.width
            for stage in preset.schedule.stages:
                yield guided, guided.stage_size(size, stage.scale), None
            yield model, size, None
    for model in known:
        for cache in _PROPOSED:
            for probe, _ in cache.shortened([0.5] * 8):
                yield model, model.size, probe
    for model in known:
        for size in reversed(stage_sizes(model, model.size)):
            yield model, size, None
    for model in known:
        for size in reversed(stage_sizes(model, model.size)):
            yield unguided(model), size, None


def memory() -> Iterator[tuple[str, Callable[[], BaseModel]]]:
    """Lists what is shipped of memory: the keys, and what counts."""
    for model in map(models.blueprint, models.available()):
        yield hashed(key("weights", model, model.size)), functools.partial(weights, model)
        tiled = bool(with_tiling(model, ModelOptions(), model.size).tiling)
        for dtype, tiles in itertools.product(_COUNTED, (False, True)[: 1 + tiled]):
            counting = functools.partial(working, model, model.size, dtype, tiles)
            yield hashed(key(f"{'tiled' if tiles else 'working'} {dtype}", model, model.size)), counting


def main() -> None:
    """Adds what is missing, and writes the file after every count."""
    versions = {name: importlib.metadata.version(name) for name in ("diffusers", "torch")}
    old = json.loads(SHIPPED.read_text()) if SHIPPED.is_file() and "--anew" not in sys.argv[1:] else {}
    found: dict[str, Any] = old.get("counts", {})
    for name, counting in memory():
        if name not in found:
            found[name] = counting().model_dump()
            print(f"{name}: {found[name]}", flush=True)
            _write(versions, found)
    for model, size, cache in wanted():
        key = key_of(model, size, cache)
        if key not in found:
            found[key] = counted(functools.partial(count, model, size, cache), cache)
            print(f"{model.name} {size[0]}x{size[1]} {cache.kind if cache else ''}: {found[key]}", flush=True)
            _write(versions, found)


def _write(versions: dict[str, str], found: dict[str, Any]) -> None:
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted(found.items()))
    head = json.dumps(versions)[1:-1]
    SHIPPED.write_text(f'{{{head},\n"counts": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    main()
