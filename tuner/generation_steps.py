"""Tells a callback and the pipeline's progress bar how far a generation is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from tuner.errors import UserError
from tuner.models import FlowModel
from tuner.sampling import StepCallback
from tuner.schedule import Schedule
from tuner.solvers import call_sigmas

if TYPE_CHECKING:
    import torch

StepEnd: TypeAlias = Callable[[Any, int, Any, dict[str, Any]], Any]
"""diffusers' ``callback_on_step_end``: called with pipeline, step, timestep and a dictionary of tensors."""


class Steps:
    """Counts the network calls of a generation.

    A step has ended where the network is asked at the next step's level for the last time, or where the stage has.

    Args:
        pipe: What the callback is given.
        schedule: What runs.
        callback: Called after a step; may be None.
        advance: Called before every network call.
    """

    def __init__(
        self, pipe: Any, schedule: Schedule, callback: StepEnd | None, advance: Callable[[], object] | None
    ):
        self._pipe, self._schedule, self._callback, self._advance = pipe, schedule, callback, advance
        self._stage, self._calls = 0, 0

    def before(self, on_step: StepCallback | None) -> StepCallback:
        """Returns the function that runs before every network call: the progress bar and the user's callback."""

        def called(stage: int, sigma: float) -> None:
            if self._advance is not None:
                self._advance()
            if on_step is not None:
                on_step(stage, sigma)

        return called

    def asked(self, x: torch.Tensor, sigma: float) -> None:
        """Tells the callback that a step has ended, if the network is asked at its end."""
        stage = self._schedule.stages[self._stage]
        levels = call_sigmas(self._schedule.solver_of(self._stage), stage.sigmas, stage.reuse)
        inside = stage.sigmas[-1] < sigma < stage.sigmas[0]
        ends = inside and sigma not in levels[self._calls + 1 :]
        self._calls += 1
        if ends:
            self._tell(stage.sigmas.index(sigma) - 1, sigma, x)

    def after_stage(self, index: int, x: torch.Tensor) -> None:
        """Tells the callback that the last step of a stage has ended."""
        stage = self._schedule.stages[index]
        self._tell(stage.steps - 1, stage.sigmas[-1], x)
        self._stage, self._calls = index + 1, 0

    def _tell(self, step: int, sigma: float, x: torch.Tensor) -> None:
        if self._callback is None:
            return
        earlier = sum(stage.steps for stage in self._schedule.stages[: self._stage])
        answer = self._callback(self._pipe, earlier + step, 1000 * sigma, {"latents": x})
        if isinstance(answer, dict) and answer.get("latents", x) is not x:
            raise UserError(
                "callback_on_step_end may look at the latents, but not change them; return them as is."
            )


@contextlib.contextmanager
def watched(model: FlowModel, schedule: Schedule, callback: StepEnd | None) -> Iterator[Steps]:
    """Lets a model tell a callback and the pipeline's progress bar of its network calls, inside the context."""
    pipe: Any = getattr(model, "pipe", None)
    bar = pipe.progress_bar(total=schedule.calls) if hasattr(pipe, "progress_bar") else contextlib.nullcontext()
    with bar as shown:
        steps = Steps(pipe or model, schedule, callback, shown.update if shown is not None else None)
        if callback is None:
            yield steps
            return
        told_model: Any = model
        velocity = model.velocity

        def told(x: torch.Tensor, sigma: float, conditioning: Any) -> torch.Tensor:
            steps.asked(x, sigma)
            return velocity(x, sigma, conditioning)

        told_model.velocity = told
        try:
            yield steps
        finally:
            del told_model.velocity
