"""The many-step trajectory that is followed, and how far from it a latent is.

Shapes: N + 1 levels, P prompts, then whatever a latent has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from tuner.distill.rule import Network

if TYPE_CHECKING:
    import torch

Choice = Literal["each", "joint", "joint-log"]


@dataclass(frozen=True)
class Teacher:
    """A many-step trajectory.

    Attributes:
        sigmas: N + 1 strictly decreasing noise levels.
        x: Latents at every level, (N + 1, P, ...).
        velocity: What the network predicts at every level but the last, (N, P, ...).
    """

    sigmas: tuple[float, ...]
    x: torch.Tensor
    velocity: torch.Tensor

    @property
    def steps(self) -> int:
        """N."""
        return len(self.sigmas) - 1


def walk(network: Network, x: torch.Tensor, sigmas: Sequence[float]) -> Teacher:
    """Runs the teacher: one Euler step and one network call per level.

    Args:
        network: The model.
        x: Latents at the first level, (P, ...).
        sigmas: The teacher's noise levels.
    """
    import torch

    latents, velocities = x.new_empty(len(sigmas), *x.shape), x.new_empty(len(sigmas) - 1, *x.shape)
    latents[0] = x
    for level, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        velocities[level] = network(latents[level], sigma)
        torch.add(latents[level], velocities[level], alpha=sigma_next - sigma, out=latents[level + 1])
    return Teacher(tuple(sigmas), latents, velocities)


def ranked(far_IP: torch.Tensor, choice: Choice) -> torch.Tensor:
    """Returns for each prompt the quantity that the chosen candidate minimises."""
    import torch

    if choice == "each":
        return far_IP
    if choice == "joint-log":
        far_IP = far_IP.clamp(min=torch.finfo(far_IP.dtype).tiny).log()
    return far_IP.mean(dim=1, keepdim=True).expand_as(far_IP)


def mean_square(difference: torch.Tensor, kept: int) -> torch.Tensor:
    """Averages squares over all but the first ``kept`` dimensions."""
    return difference.flatten(start_dim=kept).square().mean(dim=-1)
