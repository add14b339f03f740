"""Scripts of random schedules give our sampler's latents, on a network that costs nothing."""

from __future__ import annotations

from dataclasses import fields
from random import Random
from typing import Any

import pytest
import torch

import search_spaces
from studies.propose.random_trial import Draw
from tests.exporters.test_diffusers import DIFFUSERS, PROMPT, SEED, preset_of, run, spatial
from tests.search_spaces.anchored import loadable
from tuner import models
from tuner.budget import parse_budget
from tuner.exporters import ExportOptions
from tuner.flops import price
from tuner.models._packed import pack_2x2, unpack_2x2
from tuner.models._pipeline_model import PipelineModel
from tuner.models.flux import FluxBlueprint
from tuner.sampling import sample
from tuner.schedule import Schedule


class Network:
    dtype = torch.float32


def made_up(x: torch.Tensor, sigma: float, guidance: float) -> torch.Tensor:
    """Velocities of a network that is a few shifts and a tanh: mixes pixels, costs nothing."""
    return torch.tanh(x.roll(1, -1) - x.roll(1, -2).roll(1, -3) + 2 * sigma) + 0.1 * guidance * x


class MadeUp(PipelineModel):
    """What `tuner` samples with."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        return {"tokens": torch.zeros(len(prompts), 1, 1)}

    def network(self, sigma: float) -> Any:
        return Network


class MadeUpBlueprint(FluxBlueprint):
    model_class = MadeUp

    def forward(self, transformer: Any, x: torch.Tensor, sigma: float, text: Any) -> torch.Tensor:
        assert self.guidance is not None
        return made_up(x, sigma, self.guidance)


class MadeUpPipeline:
    """What a script samples with: calls the network and the scheduler as pipelines of diffusers do."""

    transformer = Network
    _execution_device = "cpu"
    scheduler: Any = None

    def __call__(
        self, latents: torch.Tensor, height: int, width: int, num_inference_steps: int, **more: Any
    ) -> Any:
        self.scheduler.set_timesteps(num_inference_steps, device="cpu")
        for timestep in self.scheduler.timesteps:
            x = unpack_2x2(latents, height // 4, width // 4)
            velocity = made_up(x, float(timestep) / 1000, more["guidance_scale"])
            (latents,) = self.scheduler.step(pack_2x2(velocity), timestep, latents)
        return (latents,)


@pytest.mark.parametrize("name", loadable())
def test_200_random_schedules_of_every_space(name: str) -> None:
    tiny, size = models.blueprint("tiny"), (64, 64)
    values = {field.name: getattr(tiny, field.name) for field in fields(tiny)}
    model = MadeUpBlueprint(**(values | {"guidance": 2.0})).wrap(MadeUpPipeline())
    known = model.blueprint
    budget = parse_budget("3x", price(tiny.baseline(), tiny), tiny, size, lambda: None)
    space = search_spaces.load(name, tiny, size, budget, lambda schedule: schedule.cache is None)
    rng = Random(0)
    for _ in range(200):
        drawn = space.suggest(Draw(rng))
        stages = [stage.model_copy(update={"guidance": rng.choice((None, 1.0, 3.0))}) for stage in drawn.stages]
        schedule = Schedule(stages=tuple(stages), solver=drawn.solver)
        script = DIFFUSERS.export(preset_of(schedule, size), known, ExportOptions())
        made = spatial(run(script, model.pipe), model, size)
        expected = sample(model, schedule, model.encode([PROMPT]), [SEED], size)
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-4 * max(1.0, float(expected.abs().max())))
