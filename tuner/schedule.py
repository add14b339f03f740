"""The one idea: a schedule is a list of stages, a stage is a size and a list of sigmas."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
from typing import Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from tuner.feature_cache import FeatureCache
from tuner.sigmas import aligned_sigma, truncated_sigmas
from tuner.solvers import calls_once_per_step, draws_noise, load, network_calls, remembers

Kernel = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos", "area", "dct", "pixel", "torch-bicubic"]

RESAMPLE_MODES: tuple[Kernel, ...] = get_args(Kernel)
"""The kernels that resize a latent as it is; PyTorch's own bicubic is one more, for students that were
trained with it; ``dct`` and ``pixel`` do more, and fit some schedules only."""

MOST_STEPS = 1000
"""Most solver steps of a stage: models are trained with 1000 noise levels."""

MOST_STAGES = 16

_SAME_SIGMA = 1e-6
_FRIENDLY = ("steps", "strength", "shift")
_OPTIONS = ("reuse", "amplitudes", "upscaler", "solver", "guidance", "guide")
_OFF: tuple[Any, ...] = (None, "", (), [])


class Stage(BaseModel):
    """One resolution and the noise levels that are solved at it.

    A stage may be written as ``sigmas``, which is what runs, or as ``steps``, ``strength``, ``shift``, which
    is how people think; the second form is turned into the first on construction and is not kept.

    Attributes:
        scale: Fraction of the output height and width, in (0, 1]; rounded to the model's size multiple.
        sigmas: N + 1 strictly decreasing noise levels in [0, 1]: N solver steps. The last step may jump from a
            high level to 0, because an Euler step to 0 is the clean-image prediction; or the stage may end
            above 0, and the next one goes on from a latent that is still noisy.
        resample: How the previous stage's result is brought to this size; unused in the first stage. A kernel
            resizes the latent. ``dct`` enlarges a latent that is still noisy by filling the new frequencies with
            noise of its level (SPEED, arXiv 2605.18736); the stage starts at the level that this gives. ``pixel``
            decodes a clean latent, resizes the image and encodes it (MrFlow, arXiv 2607.01642).
        upscaler: A super-resolution network that ``pixel`` enlarges with: a file that spandrel reads.
        reuse: Increasing numbers of steps (the first is 0) that follow the last predicted velocity instead of
            calling the network. Step 0 cannot, since a new stage has no velocity of its size yet.
        amplitudes: The 5 % and 95 % quantiles to which every step first rescales its latent, one pair per step,
            or none: the amplitude calibration of Optimal Stepsize (arXiv 2503.21774). Not with a solver that
            remembers earlier steps or draws noise.
        solver: The step rule of this stage, one of ``tuner.solvers``; None for the schedule's.
        guidance: The guidance scale of this stage, true or distilled as the model has it; None for the model's.
        guide: Noise levels (high, low): the passes of true guidance run in network calls at sigma with
            ``low < sigma <= high``, and elsewhere the prompt's own pass runs alone (guidance interval, arXiv
            2404.07724). None for all calls.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: float = 1.0
    sigmas: tuple[float, ...]
    resample: Resample = "bilinear"
    reuse: tuple[int, ...] = ()
    amplitudes: tuple[tuple[float, float], ...] = ()
    upscaler: str = ""
    solver: str | None = None
    guidance: float | None = None
    guide: tuple[float, float] | None = None

    @model_serializer(mode="wrap")
    def _leave_out_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Keeps files short, and content hashes as they were before an option existed."""
        data: dict[str, Any] = handler(self)
        return {key: value for key, value in data.items() if key not in _OPTIONS or value not in _OFF}

    @model_validator(mode="before")
    @classmethod
    def _sigmas_from_steps(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not any(key in data for key in _FRIENDLY):
            return data
        if "sigmas" in data:
            raise ValueError("write either `sigmas` or `steps`, `strength`, `shift`, not both.")
        if "steps" not in data:
            raise ValueError("`strength` and `shift` need `steps`; add it or write `sigmas`.")
        rest = {key: value for key, value in data.items() if key not in _FRIENDLY}
        steps, strength, shift = data["steps"], data.get("strength", 1.0), data.get("shift", 1.0)
        if isinstance(steps, bool) or not isinstance(steps, int):
            raise ValueError(f"`steps` must be a whole number, but got {steps!r}.")
        if steps > MOST_STEPS:
            raise ValueError(f"a stage may have at most {MOST_STEPS} steps, but `steps` is larger.")
        for name, value in (("strength", strength), ("shift", shift)):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"`{name}` must be a number, but got {value!r}.")
        return rest | {"sigmas": truncated_sigmas(steps, float(strength), float(shift))}

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: float) -> float:
        if not 0 < scale <= 1:
            raise ValueError(f"`0 < scale <= 1` must hold, but got {scale=}.")
        return scale

    @field_validator("sigmas", mode="before")
    @classmethod
    def _read_line(cls, sigmas: Any) -> Any:
        """Reads the list that other tools take as one line of text, numbers between commas."""
        if not isinstance(sigmas, str):
            return sigmas
        try:
            return tuple(float(number) for number in sigmas.replace(",", " ").split())
        except ValueError as error:
            raise ValueError(f"sigmas must be numbers between commas, but got {sigmas!r}.") from error

    @field_validator("sigmas")
    @classmethod
    def _check_sigmas(cls, sigmas: tuple[float, ...]) -> tuple[float, ...]:
        if len(sigmas) > MOST_STEPS + 1:
            raise ValueError(f"a stage may have at most {MOST_STEPS} steps, but got {len(sigmas) - 1}.")
        if len(sigmas) < 2:
            raise ValueError(f"a stage needs at least two sigmas (one step), but got {list(sigmas)}.")
        if not all(0 <= sigma <= 1 for sigma in sigmas):
            ratios = max(sigmas) > 1 and min(sigmas) >= 0
            hint = " Of ratios k of noise to image, write k / (1 + k)." if ratios else ""
            raise ValueError(f"`0 <= sigma <= 1` must hold for every sigma, but got {list(sigmas)}.{hint}")
        for high, low in itertools.pairwise(sigmas):
            if not high > low:
                raise ValueError(f"sigmas must strictly decrease, but {low} follows {high}; sort or remove one.")
        return sigmas

    @model_validator(mode="after")
    def _check_reuse(self) -> Stage:
        if list(self.reuse) != sorted(set(self.reuse)) or not all(0 < step < self.steps for step in self.reuse):
            raise ValueError(
                f"`reuse` must be increasing step numbers from 1 to {self.steps - 1}, but got {list(self.reuse)}."
            )
        return self

    @model_validator(mode="after")
    def _check_upscaler(self) -> Stage:
        if self.upscaler and self.resample != "pixel":
            raise ValueError(f"`upscaler` needs `resample: pixel`, but it is {self.resample}.")
        return self

    @model_validator(mode="after")
    def _check_amplitudes(self) -> Stage:
        if self.amplitudes and len(self.amplitudes) != self.steps:
            raise ValueError(
                f"`amplitudes` needs one pair for each of {self.steps} steps, but got {len(self.amplitudes)}."
            )
        for low, high in self.amplitudes:
            if not low < high:
                raise ValueError(f"`low < high` must hold for every pair of `amplitudes`, but got {[low, high]}.")
        return self

    @field_validator("solver")
    @classmethod
    def _check_solver(cls, solver: str | None) -> str | None:
        if solver is not None:
            load(solver)
        return solver

    @field_validator("guidance")
    @classmethod
    def _check_guidance(cls, guidance: float | None) -> float | None:
        if guidance is not None and not 0 <= guidance < math.inf:
            raise ValueError(f"`guidance >= 0` must hold, but got {guidance=}.")
        return guidance

    @field_validator("guide")
    @classmethod
    def _check_guide(cls, guide: tuple[float, float] | None) -> tuple[float, float] | None:
        if guide is not None and not 1 >= guide[0] > guide[1] >= 0:
            raise ValueError(
                f"`guide` must be two noise levels, the higher one first, within [0, 1], but got {list(guide)}."
            )
        return guide

    @property
    def steps(self) -> int:
        """Solver steps of this stage."""
        return len(self.sigmas) - 1


class Schedule(BaseModel):
    """The whole plan: stages that run one after another, and the solver that runs them.

    Attributes:
        stages: At least one stage; the first starts from noise alone, the last has scale 1 and ends at sigma 0.
            No stage starts below the noise level that the one before it ended at. The first sigma is 1, but for
            models whose own samplers start lower (`Blueprint.start`).
        solver: The step rule, one of ``tuner.solvers``, of every stage that names none of its own. If the last
            stage names one, that becomes the schedule's, and stages that had another name it.
        cache: How network calls repeat parts of earlier calls of their stage, if at all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: tuple[Stage, ...]
    solver: str = "euler"
    cache: FeatureCache | None = None

    @model_serializer(mode="wrap")
    def _leave_out_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        return data if self.cache else {key: value for key, value in data.items() if key != "cache"}

    @field_validator("solver")
    @classmethod
    def _check_solver(cls, solver: str) -> str:
        load(solver)
        return solver

    @model_validator(mode="after")
    def _check_solvers(self) -> Schedule:
        # One way to write each schedule, so that equal ones have equal hashes: the last stage names no solver.
        every = [self.solver_of(index) for index in range(len(self.stages))]
        object.__setattr__(self, "solver", every[-1])
        named = (None if solver == every[-1] else solver for solver in every)
        stages = (
            stage.model_copy(update={"solver": name}) for stage, name in zip(self.stages, named, strict=True)
        )
        object.__setattr__(self, "stages", tuple(stages))
        for index, stage in enumerate(self.stages):
            solver = self.solver_of(index)
            if self.cache and not calls_once_per_step(solver):
                raise ValueError(
                    f"a cache expects one network call per step, but solver {solver!r} makes more; use 'euler' or "
                    "a multistep solver."
                )
            if self.cache and stage.guide is not None:
                raise ValueError(
                    "a cache expects the same passes in every network call, but `guide` leaves some out; remove "
                    "the cache or `guide`."
                )
            if stage.amplitudes and (remembers(solver) or draws_noise(solver)):
                raise ValueError(
                    f"`amplitudes` rescale the latent before every step, which solver {solver!r} does not expect: "
                    "it remembers earlier steps or draws noise; use 'euler' or 'heun'."
                )
        return self

    @field_validator("stages")
    @classmethod
    def _check_stages(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        if not stages:
            raise ValueError("a schedule needs at least one stage.")
        if len(stages) > MOST_STAGES:
            raise ValueError(f"a schedule may have at most {MOST_STAGES} stages, but got {len(stages)}.")
        if stages[-1].scale != 1:
            raise ValueError(f"the last stage must have scale 1, but it has {stages[-1].scale}.")
        if stages[-1].sigmas[-1] != 0:
            raise ValueError(f"sigmas must end at 0, but the last one is {stages[-1].sigmas[-1]}; append 0.")
        for before, after in itertools.pairwise(stages):
            if after.sigmas[0] < before.sigmas[-1]:
                raise ValueError(
                    f"a stage ends at sigma {before.sigmas[-1]}, so the next one cannot start at "
                    f"{after.sigmas[0]}; start it at {before.sigmas[-1]} or above."
                )
            _check_transition(before, after)
        return stages

    def solver_of(self, index: int) -> str:
        """Returns the step rule of a stage.

        Args:
            index: Number of the stage, from 0.
        """
        return self.stages[index].solver or self.solver

    @property
    def resolved(self) -> tuple[Stage, ...]:
        """The stages, each with the solver that runs it: equal ones do the same in any schedule."""
        named = (stage.model_copy(update={"solver": self.solver_of(i)}) for i, stage in enumerate(self.stages))
        return tuple(named)

    @functools.cached_property
    def content_hash(self) -> str:
        """Sixteen hex digits that are equal for two schedules exactly when everything that runs is equal."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def steps(self) -> int:
        """Solver steps of all stages together."""
        return sum(stage.steps for stage in self.stages)

    @property
    def calls(self) -> int:
        """Network calls of all stages together; one with guidance counts once, whatever passes it makes."""
        return sum(
            network_calls(self.solver_of(index), stage.sigmas, stage.reuse)
            for index, stage in enumerate(self.stages)
        )


def _check_transition(before: Stage, after: Stage) -> None:
    """Checks the noise levels around each resample mode."""
    if after.resample == "pixel" and before.sigmas[-1] > 0:
        raise ValueError(
            f"`pixel` decodes a clean latent, but the stage before ends at sigma {before.sigmas[-1]}; end it at 0."
        )
    if after.resample == "dct":
        if after.scale < before.scale or before.sigmas[-1] == 0:
            raise ValueError(
                "`dct` enlarges a latent that is still noisy, but the stage before has scale "
                f"{before.scale} and ends at sigma {before.sigmas[-1]}; end it above 0 at a smaller scale."
            )
        aligned = aligned_sigma(before.sigmas[-1], after.scale / before.scale)
        if abs(after.sigmas[0] - aligned) > _SAME_SIGMA:
            raise ValueError(
                f"a stage that `dct` enlarges from sigma {before.sigmas[-1]} starts at {aligned:.9g}, but its "
                f"first sigma is {after.sigmas[0]}; change it."
            )
