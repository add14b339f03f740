"""The rows of ``benchmarks.gpu`` in groups, the most valuable first."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu_models import Bench, known_model
from benchmarks.gpu_scorers import SCORERS
from tuner import presets
from tuner.flops import price, tflops_per_call
from tuner.invariance import decode_each
from tuner.models._loading import compile_network
from tuner.models.base import Size
from tuner.sampling import sample
from tuner.schedule import Schedule

Row = dict[str, Any]
Add = Callable[[str, Callable[[], Row]], None]
"""Measures a row and keeps it under its name."""

STEPS_KEPT = (3, 4)
THREEFOLD, EARLY = "bottleneck-flux-3x", "ralu-flux-4x"
SCALES = (1.0, 0.5, 0.75)
BATCHES = (1, 4)
PROMPTS = ["a red circle"] * 4
STEP_REPEATS = 5
CLOSE = 0.1
"""How far our latents may be from the stock pipeline's: root mean squares, as a part of theirs."""


class Rows:
    """Measures the rows; a model is built when its first row is due.

    Args:
        add: Measures a row and keeps it.
        device: Torch device.
        small: Whether networks have a few blocks.
        repeats: Timed runs of a whole schedule, of which the median is taken; a baseline has at most two.
    """

    def __init__(self, add: Add, device: str, small: bool, repeats: int):
        self.add, self.device, self.small, self.repeats = add, device, small, repeats
        self._bench: Bench | None = None
        self._baseline_s: float | None = None
        self._steps_s: dict[Size, float] = {}

    def bench(self, name: str) -> Bench:
        """Returns a model; the one before it is let go."""
        if self._bench is None or self._bench.known.name != name:
            self._bench, self._baseline_s, self._steps_s = None, None, {}
            gc.collect()
            if self.device.startswith("cuda"):
                torch.cuda.empty_cache()
            self._bench = Bench(name, self.device, self.small)
        return self._bench

    def baseline(self) -> None:
        """Measures FLUX's baseline with our loop and, in turn, with the stock pipeline."""
        self.add("flux: baseline", self._baseline)

    def schedules(self) -> None:
        """Measures step reduction and two presets: a threefold one, and one that begins at half size."""
        for name in (*STEPS_KEPT, THREEFOLD, EARLY):
            title = self._title("flux", name)
            self.add(title, functools.partial(self._schedule, name))

    def steps(self) -> None:
        """Measures single steps of FLUX by stage size and batch."""
        for scale in SCALES:
            for batch in BATCHES:
                self.add(
                    f"flux: one step at scale {scale:g}, batch of {batch}",
                    functools.partial(self._step, "flux", scale, batch),
                )

    def whole(self) -> None:
        """Measures what comes after sampling, and all of it together."""
        self.add("flux: decode", self._decode)
        for name in SCORERS:
            for dtype in ("float32", "bfloat16"):
                self.add(
                    f"{name}, {dtype}, batch of {len(PROMPTS)}",
                    functools.partial(self._scorer, name, dtype),
                )
        self.add(f"flux: {THREEFOLD}, decoded and scored", self._whole)

    def compiled(self) -> None:
        """Measures single steps of FLUX, plain and compiled in turn, and schedules with a compiled network."""
        for scale in SCALES:
            self.add(
                f"flux: one step at scale {scale:g}, compiled",
                functools.partial(self._compiled, scale),
            )
        self._baseline_s = None  # what follows is compared with a compiled baseline
        for name in (None, STEPS_KEPT[0], THREEFOLD, EARLY):
            title = f"{self._title('flux', name)}, compiled"
            self.add(title, functools.partial(self._schedule, name))

    def wan(self) -> None:
        """Measures single steps of Wan 2.1 1.3B, and adds them up to its baseline and to fewer steps."""
        for scale in SCALES[:2]:
            self.add(
                f"wan2.1-1.3b: one step at scale {scale:g}",
                functools.partial(self._step, "wan2.1-1.3b", scale, 1),
            )
        for name in (None, STEPS_KEPT[0], THREEFOLD):
            title = self._title("wan2.1-1.3b", name)
            self.add(title, functools.partial(self._added_up, name))

    def _baseline(self) -> Row:
        bench = self.bench("flux")
        steps, schedule, latents = bench.known.steps, bench.known.baseline(), {}

        def ours() -> None:
            latents["ours"] = sample(bench.model, schedule, bench.text(), [0])

        def stock() -> None:
            latents["stock"] = bench.stock(steps).float()

        bench.warm_up(bench.step(bench.known.size))
        bench.stock(2)
        bench.forget_peak()
        medians = bench.medians({"ours": ours, "stock": stock}, min(self.repeats, 2))
        self._baseline_s = medians["ours"]
        apart = float((latents["ours"] - latents["stock"]).std() / latents["stock"].std())
        return self._row(medians["ours"], price(schedule, bench.known).tflops, latents["ours"]) | {
            "stock_seconds": medians["stock"],
            "ours_over_stock": medians["ours"] / medians["stock"],
            "latents_apart": apart,
            "latents_close": apart < CLOSE,
        }

    def _schedule(self, name: int | str | None) -> Row:
        """Times a whole schedule; the baseline, where its name is None, is what later ones are compared with."""
        bench = self.bench("flux")
        schedule, latents = _schedule(name, bench), []
        for size in {bench.known.stage_size(bench.known.size, stage.scale) for stage in schedule.stages}:
            bench.warm_up(bench.step(size))
        bench.forget_peak()
        seconds = bench.medians(
            {"it": lambda: latents.append(sample(bench.model, schedule, bench.text(), [0]))}, self.repeats
        )["it"]
        if name is None:
            self._baseline_s = seconds
        return self._row(seconds, price(schedule, bench.known).tflops, latents[-1])

    def _step(self, model: str, scale: float, batch: int) -> Row:
        bench = self.bench(model)
        size = bench.known.stage_size(bench.known.size, scale)
        run = bench.step(size, batch)
        bench.warm_up(run)
        bench.forget_peak()
        seconds = bench.medians({"it": run}, STEP_REPEATS)["it"]
        if batch == 1:
            self._steps_s[size] = seconds
        row = self._row(seconds, batch * tflops_per_call(bench.known, size), run(), whole=False)
        return row | {"height": size[0], "width": size[1], "frames": bench.known.frames, "batch": batch}

    def _compiled(self, scale: float) -> Row:
        bench = self.bench("flux")
        if bench.network.transformer_blocks[0]._compiled_call_impl is None:
            compile_network(bench.network)
        size = bench.known.stage_size(bench.known.size, scale)
        run = bench.step(size)

        def plain() -> None:
            with torch.compiler.set_stance("force_eager"):
                run()

        start = time.perf_counter()
        run()
        first = time.perf_counter() - start
        bench.warm_up(run)
        bench.warm_up(plain)
        bench.forget_peak()
        medians = bench.medians({"compiled": run, "plain": plain}, STEP_REPEATS)
        row = self._row(medians["compiled"], tflops_per_call(bench.known, size), run(), whole=False)
        return row | {
            "height": size[0],
            "width": size[1],
            "plain_seconds": medians["plain"],
            "over_plain": medians["plain"] / medians["compiled"],
            "compiling_seconds": first,
        }

    def _decode(self) -> Row:
        bench = self.bench("flux")
        latents = bench.model.noise(bench.known.size, [0])
        return self._timed(lambda: decode_each(bench.model, latents))

    def _scorer(self, name: str, dtype: str) -> Row:
        score = SCORERS[name](self.device, dtype, self.small)
        images = self._images(len(PROMPTS))
        return self._timed(lambda: score(images, PROMPTS)) | {"batch": len(PROMPTS)}

    def _whole(self) -> Row:
        bench = self.bench("flux")
        scorers = [load(self.device, "float32", self.small) for load in SCORERS.values()]
        schedule, parts, images = _schedule(THREEFOLD, bench), {}, self._images(1)

        def score() -> None:
            for scorer in scorers:
                scorer(images, PROMPTS[:1])

        latents = bench.model.noise(bench.known.size, [0])
        ways: dict[str, Callable[[], object]] = {
            "sampling": lambda: sample(bench.model, schedule, bench.text(), [0]),
            "decoding": lambda: decode_each(bench.model, latents),
            "scoring": score,
        }
        for name, way in ways.items():
            bench.warm_up(way)
            parts[name] = bench.medians({"it": way}, self.repeats)["it"]
        total = sum(parts.values())
        row: Row = {"seconds": total, "share_of": {name: seconds / total for name, seconds in parts.items()}}
        if self._baseline_s is not None:
            row["speedup"] = (self._baseline_s + parts["decoding"] + parts["scoring"]) / total
        return row

    def _title(self, model: str, name: int | str | None) -> str:
        """Says in the table what ``_schedule`` makes."""
        if isinstance(name, str):
            return f"{model}: {name}"
        return f"{model}: {_steps(known_model(model, self.small).steps, name)} steps"

    def _images(self, count: int) -> list[Any]:
        """Decodes noise: what the image shows does not matter, its size does."""
        bench = self.bench("flux")
        return decode_each(bench.model, bench.model.noise(bench.known.size, [0])) * count

    def _timed(self, run: Callable[[], object]) -> Row:
        """Times what is no network call."""
        bench = self.bench("flux")
        bench.warm_up(run)
        bench.forget_peak()
        return {"seconds": bench.medians({"it": run}, STEP_REPEATS)["it"], "peak_gib": bench.peak_gib()}

    def _added_up(self, name: int | str | None) -> Row:
        """Adds measured steps up to a schedule, which is not run as a whole."""
        bench = self.bench("wan2.1-1.3b")
        cost = price(_schedule(name, bench), bench.known)
        try:
            seconds = sum(stage.calls * self._steps_s[stage.height, stage.width] for stage in cost.stages)
        except KeyError as error:
            raise RuntimeError(f"no step was measured at size {error}.") from error
        if name is None:
            self._baseline_s = seconds
        return self._row(seconds, cost.tflops) | {"added_up": True}

    def _row(self, seconds: float, tflops: float, output: torch.Tensor | None = None, whole: bool = True) -> Row:
        """Puts what follows from seconds and TFLOPs beside them.

        Raises:
            RuntimeError: If the output holds something that is no number.
        """
        if output is not None and not output.isfinite().all():
            raise RuntimeError("the output holds NaN or infinity.")
        bench = self._bench
        assert bench is not None
        row = {
            "seconds": seconds,
            "tflops": tflops,
            "tflops_per_second": tflops / seconds,
            "peak_gib": None if output is None else bench.peak_gib(),
        }
        if whole:
            row |= {
                "speedup": self._baseline_s and self._baseline_s / seconds,
                "tflops_ratio": price(bench.known.baseline(), bench.known).tflops / tflops,
            }
        return row


def _schedule(name: int | str | None, bench: Bench) -> Schedule:
    """Returns a preset's schedule, the baseline's steps divided by a number, or the baseline."""
    if isinstance(name, str):
        return presets.load(name).schedule
    return bench.known.plain(_steps(bench.known.steps, name))


def _steps(steps: int, divisor: int | None) -> int:
    return round(steps / (divisor or 1))
