"""What draws an image: a schedule, and the model options that it was made for."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.flops import Price, price
from tuner.lora import applied

if TYPE_CHECKING:
    from tuner.models import Blueprint, FlowModel, ModelOptions, Size
    from tuner.schedule import Schedule


@dataclass(frozen=True)
class OwnOptions:
    """Options that a schedule was made for, where the model is loaded with others.

    Attributes:
        options: Guidance, negative prompt and LoRA.
        digest: Hex digits that change with any of them, and with the file of the LoRA.
    """

    options: ModelOptions
    digest: str


@dataclass(frozen=True)
class Contender:
    """A schedule that is evaluated, and what it is called.

    Attributes:
        name: For people.
        schedule: What runs.
        own: What it was made for; None where that is what the model is loaded with.
    """

    name: str
    schedule: Schedule
    own: OwnOptions | None = None

    @property
    def key(self) -> str:
        """Names what it draws; see `drawing_key`."""
        return drawing_key(self.schedule, self.own)


def drawing_key(schedule: Schedule, own: OwnOptions | None) -> str:
    """Names what draws an image: the schedule's content hash, and the digest of its own options if it has any."""
    return schedule.content_hash if own is None else f"{schedule.content_hash}-{own.digest}"


def drawing_price(schedule: Schedule, own: OwnOptions | None, model: Blueprint, size: Size) -> Price:
    """Prices a schedule with its own options; a LoRA is free, as it is once it is fused."""
    return price(schedule, model.with_options(own.options) if own else model, size)


class Dressed:
    """A loaded model with whatever options a schedule was made for.

    A LoRA stays on until other options are asked for, so that the units of work of one schedule load it once.

    Args:
        model: The model as it was loaded.
    """

    def __init__(self, model: FlowModel):
        self._loaded = model
        self._now: tuple[OwnOptions | None, FlowModel] = (None, model)
        self._lora = contextlib.ExitStack()

    def model(self, own: OwnOptions | None) -> FlowModel:
        """Returns the model with these options; what it returned before is not to be used any more.

        Raises:
            UserError: If the model has no use for the options, or if the LoRA cannot be fetched or does not fit.
        """
        if own != self._now[0]:
            self._now = (None, self._loaded)
            self._lora.close()
            if own is not None:
                dressed = self._loaded.blueprint.with_options(own.options).wrap(
                    getattr(self._loaded, "pipe", None)
                )
                self._lora.enter_context(applied(dressed, own.options))
                self._now = (own, dressed)
        return self._now[1]
