"""How long an image takes on a device: network calls are timed once, and any schedule is priced with them."""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

from tuner.flops import Price
from tuner.models.base import FlowModel, Size

_WARM_UP = 2
_REPEATS = 5
_PROMPT = "a photo of a red fox in the snow"


@dataclass(frozen=True)
class LatencyTable:
    """Times of one image, as one device takes them.

    Attributes:
        device: Name of the device.
        around_s: Seconds to encode the prompt and to decode the latent, at the output size.
        pass_s: Seconds of one network pass by stage size; not less at a larger size than at a smaller one.
    """

    device: str
    around_s: float
    pass_s: dict[Size, float]

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
        return {"device": self.device, "around_s": self.around_s, "pass_s": calls}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LatencyTable:
        """Makes a table from the result of ``as_dict``."""
        calls = {
            (int(h), int(w)): s for (h, _, w), s in ((k.partition("x"), s) for k, s in data["pass_s"].items())
        }
        return cls(data["device"], data["around_s"], calls)


def measure(model: FlowModel, size: Size, stage_sizes: Iterable[Size]) -> LatencyTable:
    """Times a loaded model on its own device: two runs to warm up, then the median of five.

    Args:
        model: The model.
        size: Output (height, width) in pixels.
        stage_sizes: Sizes at which network calls are timed, each a size that the model can produce.

    Returns:
        Times of a single image. A call at a larger size is taken to last at least as long as one at a smaller.
    """
    import torch

    with torch.inference_mode():
        conditioning = model.encode([_PROMPT])
        noise = model.noise(size, [0])
        device = model.velocity(noise, 1.0, conditioning).device
        around = _median_s(lambda: model.decode(noise)) + _median_s(lambda: model.encode([_PROMPT]))
        ordered = sorted(set(stage_sizes), key=lambda stage_size: stage_size[0] * stage_size[1])
        times = []
        for stage_size in ordered:
            x = model.noise(stage_size, [0])
            both = _median_s(lambda x=x: model.velocity(x, 0.5, conditioning).flatten()[0].item())  # type: ignore[misc]
            times.append(both / model.blueprint.passes)
    return LatencyTable(
        device=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or device.type,
        around_s=around,
        pass_s=dict(zip(ordered, itertools.accumulate(times, max), strict=True)),
    )


def _median_s(run: Callable[[], object]) -> float:
    """Times a function that waits for its device, as everything does that returns numbers or images."""
    times = []
    for _ in range(_WARM_UP + _REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return median(times[_WARM_UP:])
