"""Optimal Stepsize (arXiv 2503.21774) on a model: schedules distilled from the model's own many-step trajectories.

One teacher pass and one table (`tuner.distill.table`) hold the best schedules of every number of steps. A staged
schedule is re-timed stage by stage: each stage starts from what the stages before it, already re-timed, leave.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tuner.distill.steps import Found, Settings, best_steps
from tuner.distill.table import walk
from tuner.errors import UserError
from tuner.sampling import run_stage, stage_start
from tuner.schedule import Schedule, Stage
from tuner.solvers import network_calls

if TYPE_CHECKING:
    import torch

    from tuner.models import Conditioning, FlowModel, Size


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
