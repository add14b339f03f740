"""The best few of a teacher's levels, for every wanted number of steps: table, trace back, polish."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tuner.distill.bands import everywhere, thinned
from tuner.distill.polish import polish
from tuner.distill.table import (
    Choice,
    Distance,
    Network,
    Teacher,
    fill,
    mean_square,
    median_way,
    ranked,
)
from tuner.errors import UserError
from tuner.sampling import QUANTILES
from tuner.schedule import Solver
from tuner.solvers import SOLVERS

if TYPE_CHECKING:
    import torch

Aggregate = Literal["mean-cost", "mean-log", "median"]

_CHOICES: dict[Aggregate, Choice] = {"mean-cost": "joint", "mean-log": "joint-log", "median": "each"}


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes:
        teacher_steps: Steps of the teacher from sigma 1 to 0; a stage that covers less has as many of its levels
            as lie inside it.
        aggregate: ``mean-cost`` finds the schedule of least mean cost over prompts; ``mean-log`` of least mean
            logarithm of the cost, which is the highest mean PSNR; ``median`` finds one per prompt and takes the
            median of each step's level, as the authors do.
        distance: What is compared with the teacher: latents or predicted clean images.
        solver: The solver that the schedule will run with.
        coarse_to_fine: Fill the table at a fifth of its entries: levels coarse where steps are long and fine where
            they are short, for every number of steps at once.
        polish: Move the levels that the table found, one at a time, to where the end itself comes nearest.
        calibrate: Record the teacher's amplitudes, to which sampling then rescales the latent before every step.
        batch: Most images in one network call.
    """

    teacher_steps: int = 100
    aggregate: Aggregate = "mean-cost"
    distance: Distance = "x_t"
    solver: Solver = "euler"
    coarse_to_fine: bool = False
    polish: bool = False
    calibrate: bool = False
    batch: int = 16


@dataclass(frozen=True)
class Found:
    """A stage's best steps.

    Attributes:
        levels: Numbers of the teacher's levels, from 0 to N.
        sigmas: Their noise levels.
        cost: Mean squared distance of the end to the teacher's, over prompts and latent values.
        amplitudes: Teacher's 5 % and 95 % quantiles at every level but the last, mean over prompts.
    """

    levels: tuple[int, ...]
    sigmas: tuple[float, ...]
    cost: float
    amplitudes: tuple[tuple[float, float], ...]


def best_steps(
    network: Network, teacher: Teacher, wanted: Collection[int], settings: Settings
) -> dict[int, Found]:
    """Finds the best levels for each wanted number of steps.

    Args:
        network: The model, for the teacher's prompts.
        teacher: The trajectory to follow.
        wanted: Numbers of steps, each from 1 to the teacher's.
        settings: How to search.

    Raises:
        UserError: If more steps are wanted than the teacher has.
    """
    if max(wanted) > teacher.steps:
        raise UserError(
            f"A teacher of {teacher.steps} steps has no schedule of {max(wanted)}; raise --teacher-steps."
        )
    bands = thinned if settings.coarse_to_fine else everywhere
    ways = _table_ways(network, teacher, bands(teacher.steps, max(wanted)), wanted, settings)
    if settings.polish:
        choice = _CHOICES[settings.aggregate]

        def cost(end: torch.Tensor) -> float:
            return float(ranked(mean_square(end - teacher.x[-1], kept=1)[None], choice).mean())

        ways = {steps: polish(network, teacher, way, settings.solver, cost) for steps, way in ways.items()}
    return {steps: _found(network, teacher, way, settings) for steps, way in ways.items()}


def _table_ways(
    network: Network,
    teacher: Teacher,
    allowed: Sequence[frozenset[int]],
    wanted: Iterable[int],
    settings: Settings,
) -> dict[int, tuple[int, ...]]:
    choice = _CHOICES[settings.aggregate]
    table = fill(teacher, network, allowed, choice, settings.distance, settings.solver)
    return {steps: median_way(table.ways(steps)) for steps in wanted}


def _found(network: Network, teacher: Teacher, way: tuple[int, ...], settings: Settings) -> Found:
    import torch

    sigmas = tuple(teacher.sigmas[level] for level in way)
    end = SOLVERS[settings.solver](network, teacher.x[0], sigmas)
    amplitudes: tuple[tuple[float, float], ...] = ()
    if settings.calibrate:
        edges = torch.tensor(QUANTILES, dtype=teacher.x.dtype, device=teacher.x.device)
        quantiles = [teacher.x[level].flatten(1).quantile(edges, dim=1).mean(dim=1) for level in way[:-1]]
        amplitudes = tuple((float(low), float(high)) for low, high in quantiles)
    return Found(way, sigmas, float((end - teacher.x[-1]).square().mean()), amplitudes)
