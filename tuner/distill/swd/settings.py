"""Settings of a distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tuner.schedule import Schedule, Stage

Loss = Literal["mmd", "dmd", "gan", "patch"]
Kernel = Literal["linear", "rbf"]
Starts = Literal["data", "student"]
LOSSES: tuple[str, ...] = get_args(Loss)
KERNELS: tuple[str, ...] = get_args(Kernel)

RESAMPLE: Literal["torch-bicubic"] = "torch-bicubic"


class SwdSettings(BaseModel):
    """Settings of one run; a run is resumed with the ones it was started with.

    Attributes:
        model: Short name, hub id or folder of the teacher.
        scales: Scale of each step, not falling, the last one 1.
        sigmas: Noise level of each step from 1 down, and 0 at the end: one more than scales.
        out: Folder of the run.
        steps: Optimiser steps of the student.
        batch: Images per process and step; each stage is trained on all of them.
        losses: What the student minimises the sum of.
        kernel: Kernel of the patch loss.
        starts: What a stage after the first starts from, enlarged and noised: the real image at the size before,
            as in SwD, or what the student itself made there, as when it draws: the backward simulation of DMD2
            (arXiv 2405.14867, 4.5).
        rank: Rank of the LoRA.
        rate: Learning rate of the student.
        critic_rate: Learning rate of the critic: fake score and discriminator.
        critic_steps: Critic steps before each student step; 5 in DMD2 (arXiv 2405.14867, 4.2).
        gradient_checkpointing: Whether to compute activations again in the backward pass instead of keeping them.
        seed: Seed of weights, batches and noise.
        save_every: Steps between checkpoints and validation images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    scales: tuple[float, ...] = Field(min_length=1)
    sigmas: tuple[float, ...]
    out: Path
    steps: int = Field(gt=0)
    batch: int = Field(default=8, gt=0)
    losses: tuple[Loss, ...] = Field(default=("mmd", "dmd", "gan"), min_length=1)
    kernel: Kernel = "linear"
    starts: Starts = "data"
    rank: int = Field(default=64, gt=0)
    rate: float = Field(default=1e-4, gt=0)
    critic_rate: float = Field(default=1e-4, gt=0)
    critic_steps: int = Field(default=5, gt=0)
    gradient_checkpointing: bool = False
    seed: int = 0
    save_every: int = Field(default=250, gt=0)

    @field_validator("scales")
    @classmethod
    def _check_scales(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if list(scales) != sorted(scales):
            raise ValueError(f"scales must not fall from step to step, but got {list(scales)}; sort them.")
        return scales

    @model_validator(mode="after")
    def _check_schedule(self) -> SwdSettings:
        if len(self.sigmas) != len(self.scales) + 1 or self.sigmas[-1] != 0:
            raise ValueError(
                f"{len(self.scales)} scales need {len(self.scales)} sigmas and a 0 at the end, but got "
                f"{list(self.sigmas)}."
            )
        if self.sigmas[0] != 1:
            raise ValueError(
                f"the student starts from noise alone, so the first sigma must be 1, but it is {self.sigmas[0]:g}."
            )
        _ = self.schedule
        return self

    @property
    def schedule(self) -> Schedule:
        """The student's schedule: a stage of one step to the clean image per scale (SwD, arXiv 2503.16397)."""
        return Schedule(
            stages=tuple(
                Stage(scale=scale, sigmas=(sigma, 0.0), resample=RESAMPLE)
                for scale, sigma in zip(self.scales, self.sigmas, strict=False)
            )
        )

    @property
    def critic(self) -> bool:
        """Whether a critic is trained beside the student: for DMD's fake score or the discriminator."""
        return bool({"dmd", "gan"} & set(self.losses))
