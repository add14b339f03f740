"""How long an image takes on a device: network calls are timed once, and any schedule is priced with them."""

from __future__ import annotations

import functools
import itertools
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from tuner.flops import Price
from tuner.invariance import batch_invariant
from tuner.models.base import FlowModel, Size

if TYPE_CHECKING:
    import torch

_WARM_UP = 2
_WARM_UP_S = 1.0  # on a GPU, whose clock rises under load
_REPEATS = 5
_PROMPT = "a photo of a red fox in the snow"


@dataclass(frozen=True)
class LatencyTable:
    """Times of one image, as one device takes them when it draws some at once.

    Attributes:
        device: Name of the device.
        around_s: Seconds to encode the prompt and to decode the latent, at the output size.
        pass_s: Seconds of one network pass by stage size; not less at a larger size than at a smaller one.
        batch: Images that were drawn at once.
    """

    device: str
    around_s: float
    pass_s: dict[Size, float]
    batch: int = 1

    def pass_seconds(self, size: Size) -> float:
        """Returns the seconds of a network pass; a size that was not measured takes those of the next larger one.

        Args:
            size: Stage size, at most the output size.
        """
        pixels = size[0] * size[1]
        return min(seconds for (height, width), seconds in self.pass_s.items() if height * width >= pixels)

    def seconds(self, price: Price) -> float:
        """Returns the seconds per image of a schedule: network passes, encoding and decoding."""
        passes = (stage.nfe * self.pass_seconds((stage.height, stage.width)) for stage in price.stages)
        return self.around_s + sum(passes)

    def as_dict(self) -> dict[str, Any]:
        """Returns plain JSON types, which ``from_dict`` reads."""
        calls = {f"{height}x{width}": seconds for (height, width), seconds in self.pass_s.items()}
        return {"device": self.device, "around_s": self.around_s, "pass_s": calls, "batch": self.batch}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LatencyTable:
        """Makes a table from the result of ``as_dict``."""
        calls = {
            (int(h), int(w)): s for (h, _, w), s in ((k.partition("x"), s) for k, s in data["pass_s"].items())
        }
        return cls(data["device"], data["around_s"], calls, data.get("batch", 1))


def measure(model: FlowModel, size: Size, stage_sizes: Iterable[Size], batch: int = 1) -> LatencyTable:
    """Times a loaded model on its own device, as a worker runs it: a warm-up, then the median of five runs.

    Args:
        model: The model.
        size: Output (height, width) in pixels.
        stage_sizes: Sizes at which network calls are timed, each a size that the model can produce.
        batch: Images in one call; they are decoded one by one.

    Returns:
        Times of a single image. A call at a larger size is taken to last at least as long as one at a smaller.
    """
    import torch

    prompts, seeds = [_PROMPT] * batch, range(batch)
    with torch.inference_mode(), batch_invariant(model):
        conditioning = model.encode(prompts)
        noise = model.noise(size, seeds)
        device = model.velocity(noise, 1.0, conditioning).device
        decoding = _median_s(lambda: model.decode(noise[:1]), device)
        around = decoding + _median_s(lambda: model.encode(prompts), device) / batch
        ordered = sorted(set(stage_sizes), key=lambda stage_size: stage_size[0] * stage_size[1])
        times = []
        for stage_size in ordered:
            x = model.noise(stage_size, seeds)
            run = functools.partial(model.velocity, x, 0.5, conditioning)
            times.append(_median_s(run, device) / model.blueprint.passes / batch)
    return LatencyTable(
        device=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or device.type,
        around_s=around,
        pass_s=dict(zip(ordered, itertools.accumulate(times, max), strict=True)),
        batch=batch,
    )


def _median_s(run: Callable[[], object], device: torch.device) -> float:
    """Times a function, and waits for its device each time."""
    began, runs = time.perf_counter(), 0
    while runs < _WARM_UP or (device.type == "cuda" and time.perf_counter() - began < _WARM_UP_S):
        _once_s(run, device)
        runs += 1
    return median(_once_s(run, device) for _ in range(_REPEATS))


def _once_s(run: Callable[[], object], device: torch.device) -> float:
    _wait_for(device)
    start = time.perf_counter()
    run()
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
