"""A flow model of a few hundred multiplications and two scorers, so that whole searches run in seconds."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objectives.base import Direction
from studies import SearchSettings
from studies.records.results import PROPOSED, Candidate, StudyResult
from studies.work.evaluator import Evaluator
from studies.work.task import ChunkResult, Failure, Task
from tuner.errors import UserError
from tuner.feature_cache import FeatureCache
from tuner.models import Blueprint, Conditioning, FlowModel, Size, blueprint

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_CHANNELS, _FEATURES = 3, 8
FACTOR = 4  # pixels per side of a latent


@dataclass(frozen=True, kw_only=True)
class ToyBlueprint(Blueprint):
    pipeline_class = "ToyPipeline"

    def sigmas(self, steps: int, size: Size) -> tuple[float, ...]:
        return (*(1 - k / steps for k in range(steps)), 0.0)

    def meta_forward(self, size: Size, cache: FeatureCache | None = None) -> None:
        import torch

        if cache:
            raise UserError(f"Cache {cache.kind!r} does not work with {self.name}; leave it out.")

        pixels = torch.empty(1, size[0] // FACTOR, size[1] // FACTOR, _CHANNELS, device="meta")
        weights = torch.empty(_FEATURES, _CHANNELS, device="meta")
        torch.nn.functional.linear(torch.nn.functional.linear(pixels, weights), weights.T)

    def reconfigured(self, source: str, read: Any) -> ToyBlueprint:
        return self

    def wrap(self, pipe: Any) -> FlowModel:
        return ToyModel()

    def load(self, device: str | None = None, dtype: str | None = None, options: Any = None) -> FlowModel:
        return ToyModel()


TOY = ToyBlueprint(
    name="toy",
    source="toy",
    license="Apache-2.0",
    height=32,
    width=32,
    multiple=8,
    steps=20,
    guidance=None,
    text_tokens=1,
    transformer={},
    scheduler={},
)


def find_blueprint(model: str) -> Blueprint:
    """Finds models as the command line does, and the toy besides."""
    return TOY if model == "toy" else blueprint(model)


class ToyModel(FlowModel):
    """Every pixel flows on its own, bent enough for few steps to show."""

    blueprint = TOY

    def __init__(self) -> None:
        import torch

        generator = torch.Generator().manual_seed(0)
        self._weights = 1.5 * torch.randn(_FEATURES, _CHANNELS, generator=generator)
        self.encoded: list[tuple[str, ...]] = []

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        import torch

        self.encoded.append(tuple(prompts))
        return {"colour": torch.tensor([[len(prompt) % 7 / 7, ord(prompt[0]) % 5 / 5, 0.5] for prompt in prompts])}

    def noise(self, size: Size, seeds: Sequence[int]) -> torch.Tensor:
        import torch

        shape = (1, _CHANNELS, size[0] // FACTOR, size[1] // FACTOR)
        return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    def velocity(self, x_BCHW: torch.Tensor, sigma: float, conditioning: Conditioning) -> torch.Tensor:
        import torch

        linear = torch.nn.functional.linear
        bent = linear(torch.tanh(linear(x_BCHW.movedim(1, -1), self._weights)), self._weights.T).movedim(-1, 1)
        return x_BCHW - conditioning["colour"][:, :, None, None] + 0.1 * bent * (1 + sigma)

    def decode(self, x_BCHW: torch.Tensor) -> list[Image]:
        import torch
        from PIL import Image

        grey_BHWC = (127.5 * (1 + x_BCHW.tanh())).round().to(torch.uint8).movedim(1, -1).contiguous().numpy()
        size = (grey_BHWC.shape[2] * FACTOR, grey_BHWC.shape[1] * FACTOR)
        return [Image.fromarray(image).resize(size, Image.Resampling.NEAREST) for image in grey_BHWC]


def recorded(result: StudyResult) -> list[Candidate]:
    """The candidates up to the last proposal: without the references that only waited and ran in the end."""
    labels = [candidate.label for candidate in result.evaluated]
    return result.evaluated[: len(labels) - labels[::-1].index(PROPOSED)]


class CountingModel(ToyModel):
    """Counts network calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def velocity(self, *args: Any) -> torch.Tensor:
        self.calls += 1
        return super().velocity(*args)


class Brightness:
    """Stands in for the objective ``clip``."""

    name, unit = "clip", "grey levels"
    direction: Direction = "maximize"

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        import numpy as np

        return [float(np.asarray(image, dtype=float).mean()) for image in images]


class Smoothness:
    """Stands in for the objective ``image_reward``."""

    name, unit = "image_reward", "grey levels"
    direction: Direction = "maximize"

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        import numpy as np

        return [-float(np.abs(np.diff(np.asarray(image, dtype=float), axis=0)).mean()) for image in images]


def load_toy() -> Evaluator:
    return Evaluator(ToyModel(), [Brightness(), Smoothness()])


def whiteness(images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
    """A user's own objective."""
    return [value / 255 for value in Brightness().score(images, prompts)]


def load_toy_with(spec: str) -> Evaluator:
    """An evaluator of the toy with a registered objective or a user's own."""
    from objectives import load

    return Evaluator(ToyModel(), [load(spec)])


class Dying:
    """An evaluator that kills its own process with SIGKILL; each file of a folder is one death to die."""

    def __init__(self, deaths: Path, seed: int | None = None):
        self._deaths = deaths
        self._seed = seed
        self._evaluator = load_toy()

    def evaluate(self, task: Task) -> ChunkResult | Failure:
        if self._seed is None or self._seed in task.seeds:
            for death in self._deaths.iterdir():
                death.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
        return self._evaluator.evaluate(task)


class LosingDevice(Dying):
    """An evaluator whose process loses its GPU for good; each file of a folder is one GPU to lose."""

    def __init__(self, deaths: Path):
        super().__init__(deaths)
        self._lost = False

    def evaluate(self, task: Task) -> ChunkResult | Failure:
        for death in () if self._lost else self._deaths.iterdir():
            death.unlink()
            self._lost = True
            break
        if self._lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return self._evaluator.evaluate(task)


class Counting:
    """Runs tasks in this process, keeps a list of them, and stops with Ctrl-C after some."""

    def __init__(self, interrupt_after: int | None = None, failing: Mapping[str, str] | None = None):
        self.ran: list[Task] = []
        self.closed = False
        self._waiting: list[Task] = []
        self._evaluator = load_toy()
        self._interrupt_after = interrupt_after
        self._failing = dict(failing or {})

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def next(self) -> tuple[Task, ChunkResult | Failure]:
        if len(self.ran) == self._interrupt_after:
            raise KeyboardInterrupt
        task = self._waiting.pop(0)
        self.ran.append(task)
        if (reason := self._failing.get(task.schedule.content_hash)) is not None:
            return task, Failure(reason)
        return task, self._evaluator.evaluate(task)

    def close(self) -> None:
        self.closed = True


def toy_settings(out: Path, **changes: Any) -> SearchSettings:
    """A search of a few seconds; the tests' fixture makes ``toy`` a model name."""
    values: dict[str, Any] = {
        "model": "toy",
        "budget": "3x",
        "trials": 8,
        "out": str(out),
        "search_prompts": 6,
        "held_out_prompts": 4,
        "chunk": 2,
        "lag": 3,
    }
    return SearchSettings(**(values | changes))
