"""The best few of a teacher's levels, for every wanted number of steps: table, trace back, polish."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from tuner.distill.bands import around, calls, everywhere, thinned
from tuner.distill.polish import STRIDES, Walked, polish, walk_way
from tuner.distill.rule import Network, Rule, check
from tuner.distill.table import Distance, fill, middle_way
from tuner.distill.teacher import Choice, Teacher, mean_square, ranked
from tuner.errors import UserError
from tuner.sampling import QUANTILES
from tuner.solvers import calls_once_per_step, remembers

if TYPE_CHECKING:
    import torch

Aggregate = Literal["mean-cost", "mean-log", "median", "mean"]

_CHOICES: dict[Aggregate, Choice] = {
    "mean-cost": "joint",
    "mean-log": "joint-log",
    "median": "each",
    "mean": "each",
}

_SAVING = 4  # the whole table makes this many times the calls that coarse-to-fine may make
_SHORT = 10  # steps up to which moving every level is about as cheap as a fine table


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes:
        teacher_steps: Steps of the teacher from sigma 1 to 0; a stage that covers less has as many of its levels
            as lie inside it.
        aggregate: ``mean-cost`` finds the schedule of least mean cost over prompts; ``mean-log`` of least mean
            logarithm of the cost, which is the highest mean PSNR; ``median`` finds one per prompt and takes the
            median of each step's level, as the authors' code does, ``mean`` the mean, as their paper says.
        distance: What is compared with the teacher: the clean images that are predicted, or latents.
        solver: The solver that the schedule will run with; see `tuner.distill.rule.check`.
        coarse_to_fine: Make at most a quarter of the whole table's calls, where every entry takes as many: a table
            that is coarse where steps are long and fine where they are short, for every number of steps at once,
            and then a close look around what it found.
        polish: Move the levels that the table found, one at a time, to where the end itself comes nearest.
        calibrate: Record the teacher's amplitudes, to which sampling then rescales the latent before every step.
        batch: Most images in one network call.
    """

    teacher_steps: int = 100
    aggregate: Aggregate = "mean-cost"
    distance: Distance = "x_0"
    solver: str = "euler"
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
        UserError: If more steps are wanted than the teacher has, or the solver or its calibration is not possible.
    """
    _check(teacher, wanted, settings)
    walks = _Walks(network, teacher, settings)
    found = walks.coarse_to_fine(wanted) if settings.coarse_to_fine else walks.whole(wanted)
    if settings.polish:
        found = {steps: walks.polished(walked)[0] for steps, walked in found.items()}
    return {steps: _found(teacher, walked, settings) for steps, walked in found.items()}


def _check(teacher: Teacher, wanted: Collection[int], settings: Settings) -> None:
    """Refuses what cannot be searched."""
    check(settings.solver)
    if settings.calibrate and remembers(settings.solver):
        raise UserError(
            f"Calibration rescales the latent before every step, but solver {settings.solver!r} remembers earlier "
            "steps; use 'euler' or 'heun', or leave out --calibrate."
        )
    if max(wanted) > teacher.steps:
        raise UserError(
            f"A teacher of {teacher.steps} steps has no schedule of {max(wanted)}; raise --teacher-steps."
        )


def each_best(
    network: Network, teacher: Teacher, wanted: Collection[int], settings: Settings
) -> dict[int, list[tuple[float, ...]]]:
    """Finds for each prompt alone the noise levels that are best for it, in the whole table.

    Takes what `best_steps` takes, and looks neither at the aggregate nor at what comes after the table.
    """
    _check(teacher, wanted, settings)
    allowed = everywhere(teacher.steps, max(wanted))
    table = fill(teacher, network, allowed, "each", settings.distance, settings.solver)
    return {
        steps: [tuple(teacher.sigmas[level] for level in way) for way in table.ways(steps)] for steps in wanted
    }


def planned_calls(levels: int, wanted: Collection[int], settings: Settings) -> int | None:
    """Counts the network calls of `best_steps` per prompt; None if they depend on the outcome.

    Args:
        levels: Number of the teacher's last level.
        wanted: Numbers of steps.
        settings: How to search.
    """
    by_outcome = settings.coarse_to_fine or settings.polish or settings.distance == "x_0"
    if by_outcome or not calls_once_per_step(settings.solver):
        return None
    return calls(everywhere(levels, min(levels, max(wanted)))) + sum(steps - 1 for steps in wanted)


@dataclass(frozen=True)
class _Walks:
    """Finds ways and walks them."""

    network: Network
    teacher: Teacher
    settings: Settings

    @property
    def rule(self) -> Rule:
        """How ways step on."""
        return Rule(self.settings.solver, self.teacher.sigmas, self.network, self.teacher.x[0])

    def whole(self, wanted: Collection[int]) -> dict[int, Walked]:
        """Finds ways of each number of steps in the table of the paper."""
        return self._of_table(everywhere(self.teacher.steps, max(wanted)), wanted)

    def coarse_to_fine(self, wanted: Collection[int]) -> dict[int, Walked]:
        """Finds ways of each number of steps with at most a quarter of the calls that ``whole`` makes.

        A coarse table gives a way for every number of steps. What it leaves of the quarter goes first to a fine
        table of the levels next to each long way, longest first, whose way is kept where its end is nearer; a long
        way is not polished from afar, since the price of moving every level once grows with the square of the
        steps. What is left then polishes all ways, in proportion to their steps.
        """
        levels, longest = self.teacher.steps, max(wanted)
        coarse = thinned(levels, longest)
        found = self._of_table(coarse, wanted)
        walks = sum(wanted) - len(wanted)
        left = (calls(everywhere(levels, longest)) + walks) // _SAVING - calls(coarse) - walks
        for steps in sorted((steps for steps in wanted if steps > _SHORT), reverse=True):
            fine = around(found[steps].way, 1)
            if (price := calls(fine) + steps - 1) <= left:
                again = self._of_table(fine, [steps])[steps]
                found[steps] = min(found[steps], again, key=lambda walked: self.cost(walked.end))
                left -= price
        rest = sum(wanted)
        for steps in sorted(wanted):
            share = left * steps // rest
            found[steps], taken = self.polished(found[steps], share, STRIDES if steps <= _SHORT else STRIDES[-1:])
            left, rest = left - taken, rest - steps
        return found

    def polished(
        self, walked: Walked, most_steps: float = math.inf, strides: Sequence[int] = STRIDES
    ) -> tuple[Walked, int]:
        """Moves a way's levels, one at a time, to where its end comes nearest; returns the steps walked, too."""
        return polish(self.rule, self.teacher, walked, self.cost, most_steps, strides)

    def cost(self, end: torch.Tensor) -> float:
        """Returns the quantity that the best end minimises."""
        choice = _CHOICES[self.settings.aggregate]
        return float(ranked(mean_square(end - self.teacher.x[-1], kept=1)[None], choice).mean())

    def _of_table(self, allowed: Sequence[frozenset[int]], wanted: Collection[int]) -> dict[int, Walked]:
        settings = self.settings
        choice = _CHOICES[settings.aggregate]
        table = fill(self.teacher, self.network, allowed, choice, settings.distance, settings.solver)
        return {
            steps: walk_way(
                self.rule,
                self.teacher,
                middle_way(table.ways(steps), np.mean if self.settings.aggregate == "mean" else np.median),
            )
            for steps in wanted
        }


def _found(teacher: Teacher, walked: Walked, settings: Settings) -> Found:
    import torch

    way = walked.way
    amplitudes: tuple[tuple[float, float], ...] = ()
    if settings.calibrate:
        edges = torch.tensor(QUANTILES, dtype=teacher.x.dtype, device=teacher.x.device)
        quantiles = [teacher.x[level].flatten(1).quantile(edges, dim=1).mean(dim=1) for level in way[:-1]]
        amplitudes = tuple((float(low), float(high)) for low, high in quantiles)
    cost = float((walked.end - teacher.x[-1]).square().mean())
    return Found(way, tuple(teacher.sigmas[level] for level in way), cost, amplitudes)
