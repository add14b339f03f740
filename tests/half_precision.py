"""Runs a small random pipeline in bfloat16, by our loop and by itself, and looks at what its network is given."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from tests.small_pipelines import shortened, small_pipeline
from tuner.models import wrap
from tuner.sampling import sample

PROMPTS, SEEDS = ["a red fox"], [7]
STEPS = {"HunyuanVideo15Pipeline": 3}  # its 1,700 tokens are slow in bfloat16 on a CPU; 20 for the others


@dataclass(frozen=True)
class Runs:
    """Latents, and the timesteps that the network was given, by our loop and by the stock pipeline."""

    ours: torch.Tensor
    stock: torch.Tensor
    float32: torch.Tensor
    our_timesteps: list[torch.Tensor]
    stock_timesteps: list[torch.Tensor]

    def check_timesteps(self) -> None:
        """Those that the pipeline rounds must be equal; in float32 its own levels are some roundings off."""
        assert len(self.our_timesteps) == len(self.stock_timesteps)
        largest = max(float(timestep) for timestep in self.stock_timesteps)
        for ours, stock in zip(self.our_timesteps, self.stock_timesteps, strict=True):
            allowed = 1e-6 * largest if stock.dtype == torch.float32 else 0
            assert abs(float(ours) - float(stock)) <= allowed

    def check_latents(self) -> None:
        """Ours must be as close to those of float32 as the stock pipeline's."""
        ours, stock = (float((latents - self.float32).std()) for latents in (self.ours, self.stock))
        assert stock > 0
        assert ours < 1.2 * stock


@contextlib.contextmanager
def timesteps_of(network: Any) -> Iterator[list[torch.Tensor]]:
    """Collects what a network is given as the timestep of the first row, call by call."""
    seen: list[torch.Tensor] = []

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        seen.append(timestep.flatten()[0].clone())

    hook = network.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def run_both(pipeline_class: str, device: str) -> Runs:
    """Runs the small pipeline of a class."""
    small, steps = small_pipeline(pipeline_class), STEPS.get(pipeline_class, 20)
    pipe, size = small.build().to(device, torch.bfloat16), small.SIZES[0]
    exact = copy.deepcopy(pipe).to(torch.float32)  # the weights are the same: they were rounded before
    known = shortened(wrap(pipe).blueprint, small)
    network = getattr(pipe, known.denoiser)

    def run(some: Any) -> torch.Tensor:
        model = known.wrap(some)
        return sample(model, known.plain(steps, size), model.encode(PROMPTS), SEEDS, size)

    with timesteps_of(network) as our_timesteps:
        ours = run(pipe)
    with timesteps_of(network) as stock_timesteps:
        stock = small.stock_latents(pipe, known, PROMPTS, SEEDS, steps, size).float()
    return Runs(ours, stock, run(exact), our_timesteps, stock_timesteps)
