"""Measures latencies for a budget in seconds, once per study and where the workers run."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from studies.plan.chunks import default_chunk
from studies.workers.executors import device_of
from studies.workers.start import cargo_for
from tuner.fits import check_fits
from tuner.invariance import one_thread
from tuner.latency import LatencyTable, measure
from tuner.models import Blueprint, ModelOptions, Size

if TYPE_CHECKING:
    from studies.plan.settings import SearchSettings


def latencies(settings: SearchSettings, model: Blueprint, size: Size) -> LatencyTable:
    """Reads the latencies of a started study, or measures them for a new one.

    Args:
        settings: The search; its workers decide where to measure.
        model: The model.
        size: Output (height, width) in pixels.

    Raises:
        UserError: If the model or the workers cannot be started, or if workers would run on GPUs of several kinds.
    """
    known = Path(settings.out) / settings.name / "settings.json"
    if known.is_file():
        saved = json.loads(known.read_text(encoding="utf-8"))["identity"].get("latency")
        if saved is not None:
            return LatencyTable.from_dict(saved)
    from search_spaces import stage_sizes

    device = device_of(settings.gpus_per_worker)
    cargo = cargo_for(settings, ())
    options = cargo.options(settings.options)
    model = replace(model, source=cargo.model(model.source))
    batch = settings.chunk or default_chunk(model, size)
    run = functools.partial(_load_and_measure, options, model, device, size, stage_sizes(model, size), batch)
    if settings.workers == 0:
        return run()
    from studies.workers.ray_executor import run_on_a_worker

    return run_on_a_worker(run, settings.workers, settings.gpus_per_worker, settings.ray_address, cargo)


def _load_and_measure(
    options: ModelOptions, model: Blueprint, device: str | None, size: Size, sizes: list[Size], batch: int
) -> LatencyTable:
    everything = options.model_copy(update={"free_text_encoders": None})  # text is timed, too
    check_fits(model, everything, device)
    with one_thread():  # as a worker does
        return measure(model.load(device, options=everything), size, sizes, batch)
