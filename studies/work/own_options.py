"""A schedule together with the model options that it was made for."""

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
    """A named schedule under evaluation.

    Attributes:
        name: Shown to users.
        schedule: What runs.
        own: Options that it was made for; None if the model is loaded with them.
    """

    name: str
    schedule: Schedule
    own: OwnOptions | None = None

    @property
    def key(self) -> str:
        """Key of its images; see `drawing_key`."""
        return drawing_key(self.schedule, self.own)


def drawing_key(schedule: Schedule, own: OwnOptions | None) -> str:
    """Returns the key of a schedule's images: its content hash, and the digest of its own options if any."""
    return schedule.content_hash if own is None else f"{schedule.content_hash}-{own.digest}"


def drawing_price(schedule: Schedule, own: OwnOptions | None, model: Blueprint, size: Size) -> Price:
    """Prices a schedule with its own options. A LoRA counts as fused, so it costs nothing."""
    return price(schedule, model.with_options(own.options) if own else model, size)


class Dressed:
    """A loaded model that takes on the options of each schedule.

    A LoRA stays loaded until a schedule asks for other options, so the tasks of one schedule load it once.

    Args:
        model: The model as it was loaded.
    """

    def __init__(self, model: FlowModel):
        self._loaded = model
        self._now: tuple[OwnOptions | None, FlowModel] = (None, model)
        self._lora = contextlib.ExitStack()

    def model(self, own: OwnOptions | None) -> FlowModel:
        """Returns the model with these options. Models that it returned before must not be used any more.

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
