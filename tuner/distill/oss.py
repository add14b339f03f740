"""Optimal Stepsize (arXiv 2503.21774) on a model: schedules distilled from the model's own many-step trajectories.

One teacher pass and one table (`tuner.distill.table`) hold the best schedules of every number of steps. A staged
schedule is re-timed stage by stage: each stage starts from what the stages before it, already re-timed, leave.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from tuner.distill.rule import check
from tuner.distill.steps import Found, Settings, best_steps, each_best, planned_calls
from tuner.distill.teacher import walk
from tuner.errors import UserError
from tuner.sampling import run_stage, stage_start
from tuner.schedule import Schedule, Stage
from tuner.solvers import network_calls

if TYPE_CHECKING:
    import torch

    from tuner.models import Conditioning, FlowModel, Size

_KEPT_PER_LEVEL = 4  # the teacher's latent and velocity, those of the best way
_MOST_ON_DEVICE = 4 << 30  # bytes

OnProgress: TypeAlias = "Callable[[int, int | None], None]"
"""Called with the image forward passes so far and all that there will be; None where that is not known before."""


@dataclass(frozen=True)
class Result:
    """The outcome of a search.

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
        total: How many image forward passes there will be, if that is known.
        on_progress: Called after every call.
        images: How many image forward passes there were: calls times the images in each.
    """

    model: FlowModel
    conditioning: Conditioning
    batch: int
    total: int | None = None
    on_progress: OnProgress | None = None
    images: int = field(default=0, init=False)

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """Predicts the velocity of all prompts at one noise level, where their latents are kept."""
        import torch

        found = torch.empty_like(x)
        for start in range(0, len(x), self.batch):
            rows = slice(start, start + self.batch)
            some = {key: value[rows] for key, value in self.conditioning.items()}
            found[rows] = self.model.velocity(x[rows].to(self.model.device), sigma, some).to(x.device)
            self.count(len(x[rows]))
        return found

    def kept(self, x: torch.Tensor, levels: int) -> torch.Tensor:
        """Moves latents to where there is room for those of a teacher and of a table: large ones to the CPU.

        Args:
            x: Latents of all prompts.
            levels: Noise levels of the teacher.
        """
        large = _KEPT_PER_LEVEL * levels * x.nbytes > _MOST_ON_DEVICE
        return x.cpu() if large else x

    def count(self, images: int) -> None:
        """Counts image forward passes, including those of calls made elsewhere."""
        self.images += images
        if self.on_progress is not None:
            self.on_progress(self.images, self.total)


def search(
    model: FlowModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: Collection[int],
    size: Size,
    settings: Settings,
    on_progress: OnProgress | None = None,
) -> Result:
    """Finds one-stage schedules for every wanted number of steps from one teacher pass.

    Args:
        model: The model.
        prompts: P prompts to search on.
        seeds: Their noise seeds.
        steps: The wanted numbers of steps.
        size: Output (height, width) in pixels.
        settings: How to search.
        on_progress: Called after every network call.

    Returns:
        A schedule per number of steps, increasing.

    Raises:
        UserError: If more steps are wanted than the teacher has, or with a solver that
            `tuner.distill.rule.check` refuses.
    """
    import torch

    check(settings.solver)
    levels = settings.teacher_steps
    schedule = model.blueprint.plain(levels, size)
    calls = _calls(levels, steps, settings)
    total = None if calls is None else len(prompts) * calls
    network = BatchedNetwork(model, _encoded(model, prompts), settings.batch, total, on_progress)
    with torch.inference_mode():
        start = network.kept(stage_start(model, schedule, 0, None, seeds, size), settings.teacher_steps)
        teacher = walk(network, start, schedule.stages[0].sigmas)
        found = best_steps(network, teacher, sorted(steps), settings)
    schedules = {
        count: Schedule(stages=(_stage(Stage(sigmas=one.sigmas), one),), solver=settings.solver)
        for count, one in found.items()
    }
    return Result(schedules, {count: one.cost for count, one in found.items()}, network.images)


def search_each(
    model: FlowModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    size: Size,
    settings: Settings,
    on_progress: OnProgress | None = None,
) -> list[Schedule]:
    """Finds for each prompt and its noise the one-stage schedule that is best for it alone: the paper's OSS.

    What one schedule for all prompts can come to at most; see `search` for the arguments. The aggregate and what
    comes after the table are not used.
    """
    import torch

    network = BatchedNetwork(model, _encoded(model, prompts), settings.batch, None, on_progress)
    schedule = model.blueprint.plain(settings.teacher_steps, size)
    with torch.inference_mode():
        start = network.kept(stage_start(model, schedule, 0, None, seeds, size), settings.teacher_steps)
        teacher = walk(network, start, schedule.stages[0].sigmas)
        found = each_best(network, teacher, [steps], settings)[steps]
    return [Schedule(stages=(Stage(sigmas=sigmas),), solver=settings.solver) for sigmas in found]


def retime(
    model: FlowModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    schedule: Schedule,
    size: Size,
    settings: Settings,
    on_progress: OnProgress | None = None,
) -> Result:
    """Gives every stage of a schedule its best sigmas, keeping its size, steps, first and last sigma.

    Stages are re-timed in order. Each has a teacher of its own: it starts from what the stages before it leave
    with their new sigmas, and walks the levels of the model's ``teacher_steps`` grid that lie inside the stage.

    Args:
        model: The model.
        prompts: P prompts to search on.
        seeds: Their noise seeds.
        schedule: What to re-time; its solvers are kept.
        size: Output (height, width) in pixels of the whole schedule.
        settings: How to search; its solver is not used, but the stage's own.
        on_progress: Called after every network call.

    Raises:
        UserError: If a stage has more steps than its teacher, reuses velocities, or has a solver that
            `tuner.distill.rule.check` refuses.
    """
    import torch

    conditioning = _encoded(model, prompts)
    grids = [_levels_inside(model, stage, size, settings.teacher_steps) for stage in schedule.stages]
    each = [replace(settings, solver=schedule.solver_of(index)) for index in range(len(grids))]
    planned = [
        _calls(len(grid) - 1, [stage.steps], of_stage)
        for grid, stage, of_stage in zip(grids, schedule.stages, each, strict=True)
    ]
    known = [calls for calls in planned if calls is not None]
    total = len(prompts) * (sum(known) + schedule.steps) if len(known) == len(planned) else None
    network = BatchedNetwork(model, conditioning, settings.batch, total, on_progress)
    x: torch.Tensor | None = None
    cost = 0.0
    for index, stage in enumerate(schedule.stages):
        _check_stage(index, stage, each[index].solver)
        with torch.inference_mode():
            start = network.kept(stage_start(model, schedule, index, x, seeds, size), len(grids[index]))
            teacher = walk(network, start, grids[index])
            found = best_steps(network, teacher, [stage.steps], each[index])[stage.steps]
        stages = [_stage(stage, found) if i == index else other for i, other in enumerate(schedule.stages)]
        schedule = Schedule(stages=tuple(stages), solver=schedule.solver)
        x = run_stage(model, schedule, index, x, conditioning, seeds, size)
        network.count(len(x) * network_calls(each[index].solver, found.sigmas))
        cost = found.cost
    return Result({schedule.steps: schedule}, {schedule.steps: cost}, network.images)


def _encoded(model: FlowModel, prompts: Sequence[str]) -> Conditioning:
    """Encodes the prompts, and frees the text encoders of a model that was loaded to do so."""
    conditioning = model.encode(prompts)
    if model.when_encoded:
        model.free_text_encoders()
    return conditioning


def _check_stage(index: int, stage: Stage, solver: str) -> None:
    """Refuses a stage that cannot be re-timed."""
    if stage.reuse:
        raise UserError(f"Stage {index + 1} reuses velocities, so its steps cannot be re-timed; remove `reuse`.")
    check(solver)


def _calls(levels: int, wanted: Collection[int], settings: Settings) -> int | None:
    """Counts the calls for each prompt, the teacher's own ones included; see `planned_calls`."""
    planned = planned_calls(levels, wanted, settings)
    return None if planned is None else levels + planned


def _levels_inside(model: FlowModel, stage: Stage, size: Size, steps: int) -> tuple[float, ...]:
    high, low = stage.sigmas[0], stage.sigmas[-1]
    levels = model.blueprint.sigmas(steps, model.blueprint.stage_size(size, stage.scale))
    return (high, *(level for level in levels if low < level < high), low)


def _stage(stage: Stage, found: Found) -> Stage:
    return stage.model_copy(update={"sigmas": found.sigmas, "amplitudes": found.amplitudes})
