"""What the commands share that train students of Scale-wise Distillation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from tuner.cli._common import add_options
from tuner.errors import UserError

if TYPE_CHECKING:
    from tuner.distill.swd import SwdSettings


def list_of(convert: Callable[[str], Any]) -> Callable[..., tuple[Any, ...] | None]:
    """Makes the callback of an option that is a list, separated by commas; None where it is not given."""

    def parse(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[Any, ...] | None:
        if text is None:
            return None
        try:
            return tuple(convert(part.strip()) for part in text.split(","))
        except ValueError:
            raise click.BadParameter(f"{text!r} is not a list of numbers; write e.g. 0.5,0.75,1.") from None

    return parse


_OPTIONS = (
    click.option("--lora-rank", "rank", default=64, show_default=True, help="Rank of the LoRA."),
    click.option(
        "--loss", "losses", default="mmd,dmd,gan", show_default=True, callback=list_of(str), help="Losses."
    ),
    click.option("--kernel", default="linear", show_default=True, help="Kernel of the patch loss: linear or rbf."),
    click.option(
        "--starts", default="data", show_default=True, help="What the next stage enlarges: data or student."
    ),
    click.option("--lr", "rate", default=1e-4, show_default=True, help="Learning rate of the student."),
    click.option(
        "--critic-lr", "critic_rate", default=1e-4, show_default=True, help="Learning rate of the critic."
    ),
    click.option("--critic-steps", default=5, show_default=True, help="Critic steps before a student step."),
)


def training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options of a student's training: the LoRA, the losses and the learning rates."""
    return add_options(command, _OPTIONS)


def settings_of(options: dict[str, Any]) -> SwdSettings:
    """Makes the settings of a training.

    Raises:
        UserError: If they break a rule.
    """
    from pydantic import ValidationError

    from tuner.distill.swd import SwdSettings
    from tuner.presets import first_problem

    try:
        return SwdSettings(**options)
    except ValidationError as error:
        raise UserError(f"These settings break a rule: {first_problem(error)}") from error
