"""Optimal Stepsize (arXiv 2503.21774) on a model: schedules distilled from the model's own many-step trajectories.

One teacher pass and one table (`tuner.distill.table`) hold the best schedules of every number of steps. A staged
schedule is re-timed stage by stage: each stage starts from what the stages before it, already re-timed, leave.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from tuner.distill.table import Choice, Distance, Network, Teacher, fill, median_way, walk
from tuner.errors import UserError
from tuner.sampling import QUANTILES, run_stage, stage_start
from tuner.schedule import Schedule, Solver, Stage
from tuner.solvers import SOLVERS, network_calls

if TYPE_CHECKING:
    import torch

    from tuner.models import Conditioning, FlowModel, Size

Aggregate = Literal["mean-cost", "median"]

_CHOICES: dict[Aggregate, Choice] = {"mean-cost": "joint", "median": "each"}
_GRIDS = ((0.02, 5), (0.0, 2))  # (spacing as a share of the teacher's levels, neighbours on either side)


@dataclass(frozen=True)
class Settings:
    """How to search.

    Attributes:
        teacher_steps: Steps of the teacher from sigma 1 to 0; a stage that covers less has as many of its levels
            as lie inside it.
        aggregate: ``mean-cost`` finds the schedule of least mean cost over prompts; ``median`` finds one per
            prompt and takes the median of each step's level, as the authors do.
        distance: What is compared with the teacher: latents or predicted clean images.
        solver: The solver that the schedule will run with.
        coarse_to_fine: Search every number of steps on grids of growing fineness around the way found before,
            instead of one table on all levels.
        calibrate: Record the teacher's amplitudes, to which sampling then rescales the latent before every step.
        batch: Most images in one network call.
    """

    teacher_steps: int = 100
    aggregate: Aggregate = "mean-cost"
    distance: Distance = "x_t"
    solver: Solver = "euler"
    coarse_to_fine: bool = False
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


@dataclass(frozen=True)
class Result:
    """What a search found.

    Attributes:
        schedules: One per number of steps.
        costs: Its mean squared distance to the end of the teacher (of the last stage's, for a staged schedule).
        images: Image forward passes that the search took.
    """

    schedules: dict[int, Schedule]
    costs: dict[int, float]
    images: int


@dataclass
class BatchedNetwork:
    """Calls a model for some prompts, a batch at a time, and counts.

    Attributes:
        model: The model.
        conditioning: A row per prompt.
        batch: Most rows in one call.
        images: How many image forward passes there were: calls times the images in each.
    """

    model: FlowModel
    conditioning: Conditioning
    batch: int
    images: int = field(default=0)

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """Predicts the velocity of all prompts at one noise level."""
        import torch

        self.images += len(x)
        parts = []
        for start in range(0, len(x), self.batch):
            rows = slice(start, start + self.batch)
            some = {key: value[rows] for key, value in self.conditioning.items()}
            parts.append(self.model.velocity(x[rows], sigma, some))
        return torch.cat(parts)


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
    if settings.coarse_to_fine:
        ways = {steps: _refined(network, teacher, steps, settings) for steps in wanted}
    else:
        ways = _table_ways(network, teacher, everywhere(teacher.steps, max(wanted)), wanted, settings)
    return {steps: _found(network, teacher, way, settings) for steps, way in ways.items()}


def everywhere(levels: int, steps: int) -> list[frozenset[int]]:
    """Allows all levels after every step: the table of the paper."""
    return [frozenset({0}), *(frozenset(range(k, levels + 1)) for k in range(1, steps + 1))]


def around(way: Sequence[int], spacing: int, reach: int) -> list[frozenset[int]]:
    """Allows, after every step, the levels up to ``reach`` spacings away from a way's.

    Args:
        way: K + 1 level numbers, the last one N.
        spacing: Distance of neighbours.
        reach: How many neighbours on either side.
    """
    steps, last = len(way) - 1, way[-1]
    bands = [frozenset({0})]
    for k in range(1, steps):
        near = (way[k] + step * spacing for step in range(-reach, reach + 1))
        bands.append(frozenset(min(max(level, k), last - steps + k) for level in near))
    return [*bands, frozenset({last})]


def _refined(network: Network, teacher: Teacher, steps: int, settings: Settings) -> tuple[int, ...]:
    """Searches around the evenly numbered levels on a coarse grid, then around what was found on every level.

    The recursion is not exact, so a finer grid may find a worse way: the best of both counts.
    """
    found: list[tuple[float, tuple[int, ...]]] = []
    way = tuple(round(k * teacher.steps / steps) for k in range(steps + 1))
    for share, reach in _GRIDS:
        allowed = around(way, max(1, round(share * teacher.steps)), reach)
        way = _table_ways(network, teacher, allowed, [steps], settings)[steps]
        found.append((_found(network, teacher, way, settings).cost, way))
    return min(found)[1]


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


def search(
    model: FlowModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: Collection[int],
    size: Size,
    settings: Settings,
) -> Result:
    """Finds one-stage schedules for every wanted number of steps from one teacher pass.

    Args:
        model: The model.
        prompts: P prompts to search on.
        seeds: Their noise seeds.
        steps: The wanted numbers of steps.
        size: Output (height, width) in pixels.
        settings: How to search.

    Returns:
        A schedule per number of steps, increasing.

    Raises:
        UserError: If more steps are wanted than the teacher has.
    """
    import torch

    schedule = model.blueprint.plain(settings.teacher_steps, size)
    network = BatchedNetwork(model, model.encode(prompts), settings.batch)
    with torch.inference_mode():
        start = stage_start(model, schedule, 0, None, seeds, size)
        teacher = walk(network, start, schedule.stages[0].sigmas)
        found = best_steps(network, teacher, sorted(steps), settings)
    schedules = {
        count: Schedule(stages=(_stage(Stage(sigmas=one.sigmas), one),), solver=settings.solver)
        for count, one in found.items()
    }
    return Result(schedules, {count: one.cost for count, one in found.items()}, network.images)


def retime(
    model: FlowModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    schedule: Schedule,
    size: Size,
    settings: Settings,
) -> Result:
    """Gives every stage of a schedule its best sigmas, keeping its size, steps, first and last sigma.

    Stages are re-timed in order. Each has a teacher of its own: it starts from what the stages before it leave
    with their new sigmas, and walks the levels of the model's ``teacher_steps`` grid that lie inside the stage.

    Args:
        model: The model.
        prompts: P prompts to search on.
        seeds: Their noise seeds.
        schedule: What to re-time; its solver is kept.
        size: Output (height, width) in pixels of the whole schedule.
        settings: How to search; its solver is not used.

    Raises:
        UserError: If a stage has more steps than its teacher, or reuses velocities.
    """
    import torch

    settings = replace(settings, solver=schedule.solver)
    conditioning = model.encode(prompts)
    network = BatchedNetwork(model, conditioning, settings.batch)
    x: torch.Tensor | None = None
    cost = 0.0
    for index, stage in enumerate(schedule.stages):
        if stage.reuse:
            raise UserError(
                f"Stage {index + 1} reuses velocities, so its steps cannot be re-timed; remove `reuse`."
            )
        grid = _levels_inside(model, stage, size, settings.teacher_steps)
        with torch.inference_mode():
            teacher = walk(network, stage_start(model, schedule, index, x, seeds, size), grid)
            found = best_steps(network, teacher, [stage.steps], settings)[stage.steps]
        stages = [_stage(stage, found) if i == index else other for i, other in enumerate(schedule.stages)]
        schedule = Schedule(stages=tuple(stages), solver=schedule.solver)
        x = run_stage(model, schedule, index, x, conditioning, seeds, size)
        network.images += len(x) * network_calls(schedule.solver, found.sigmas)
        cost = found.cost
    return Result({schedule.steps: schedule}, {schedule.steps: cost}, network.images)


def _levels_inside(model: FlowModel, stage: Stage, size: Size, steps: int) -> tuple[float, ...]:
    high, low = stage.sigmas[0], stage.sigmas[-1]
    levels = model.blueprint.sigmas(steps, model.blueprint.stage_size(size, stage.scale))
    return (high, *(level for level in levels if low < level < high), low)


def _stage(stage: Stage, found: Found) -> Stage:
    return stage.model_copy(update={"sigmas": found.sigmas, "amplitudes": found.amplitudes})
