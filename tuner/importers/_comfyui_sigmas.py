"""Noise levels of ComfyUI's nodes."""

from __future__ import annotations

import math
import re
from typing import Any

from tuner.importers.base import unreadable
from tuner.sigmas import shift_sigma

_NUMBER = re.compile(r"[-+]?(?:\d*\.*\d+)")
_SHIFTS = {
    "flux": math.exp(1.15),
    "flux-schnell": 1.0,
    "flux2": math.exp(2.02),
    "qwen-image": math.exp(1.15),
    "sd3.5-medium": 3.0,
    "sd3.5-large": 3.0,
    "wan2.1-1.3b": 8.0,
    "wan2.1-14b": 8.0,
    "wan2.2": 8.0,
    "hunyuan-video": 7.0,
    "z-image": 3.0,
    "z-image-turbo": 3.0,
}
"""The shift that ComfyUI gives a model (comfy/supported_models.py, read 2026-11-27)."""
_TRAIN_STEPS = {"flux": 10000, "flux2": 10000, "qwen-image": 10000}
"""Levels in a model's table, where they are not a thousand."""


class Sigmas:
    """Reads the levels that a link to SIGMAS gives.

    Args:
        file: Name of the file, for errors.
        graph: Nodes by number.
        model: Short name of the model, whose shift ``BasicScheduler`` uses.
    """

    def __init__(self, file: str, graph: dict[str, Any], model: str):
        self._file, self._graph, self._model = file, graph, model

    def read(self, link: list[Any]) -> list[float]:
        """Returns the levels.

        Raises:
            UserError: If a node on the way is not known.
        """
        node = self._graph[link[0]]
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "ManualSigmas":
            return [float(number) for number in _NUMBER.findall(inputs["sigmas"])]
        if kind == "SplitSigmas":
            levels, step = self.read(inputs["sigmas"]), inputs["step"]
            return levels[: step + 1] if link[1] == 0 else levels[step:]
        if kind == "SetFirstSigma":
            return [inputs["sigma"], *self.read(inputs["sigmas"])[1:]]
        if kind == "BasicScheduler":
            return self.scheduled(inputs["model"], inputs["scheduler"], inputs["steps"], inputs["denoise"])
        raise unreadable(self._file, f"node {kind!r} is not known here; write its levels in ManualSigmas")

    def scheduled(self, model: list[Any], scheduler: str, steps: int, denoise: float) -> list[float]:
        """Returns the levels of ``simple``: every k-th of the model's table, from the noisiest.

        Raises:
            UserError: If the scheduler or the model's shift is another.
        """
        if scheduler != "simple":
            raise unreadable(
                self._file,
                f"scheduler {scheduler!r} is not read; use 'simple', or write its levels in ManualSigmas",
            )
        shift, count = self._shift(model), _TRAIN_STEPS.get(self._model, 1000)
        total = steps if denoise > 0.9999 else int(steps / denoise)
        table = (count - int(step * count / total) for step in range(total))
        levels = [*(shift_sigma(place / count, shift) for place in table), 0.0]
        return levels[-(steps + 1) :]

    def _shift(self, link: list[Any]) -> float:
        """Returns the shift that is set on the way to the model's loader, or else the model's own."""
        node = self._graph[link[0]]
        while "model" in node["inputs"]:
            if node["class_type"] in ("ModelSamplingSD3", "ModelSamplingAuraFlow"):
                return float(node["inputs"]["shift"])
            if node["class_type"].startswith("ModelSampling"):
                raise unreadable(
                    self._file, f"the shift of {node['class_type']!r} is not read; write levels in ManualSigmas"
                )
            node = self._graph[node["inputs"]["model"][0]]
        if self._model not in _SHIFTS:
            raise unreadable(self._file, "the shift of its model is not known; name the model with --model")
        return _SHIFTS[self._model]
