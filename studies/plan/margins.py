"""Margins: the largest loss that counts as none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.errors import UserError, unknown_name

WITHIN = "within:"
"""Prefix of a pick that goes by a margin, as in ``within:1%``."""

_FORMS = (
    "write 1% (of the baseline's mean) or 0.05 (in the objective's unit), or one for each: clip=1%,reward=0.05"
)


@dataclass(frozen=True)
class Margin:
    """The largest acceptable loss.

    Attributes:
        value: A fraction of the size of the baseline's mean, or points of the objective.
        relative: Whether the value is a fraction.
    """

    value: float
    relative: bool

    def __str__(self) -> str:
        return f"{100 * self.value:g} %" if self.relative else f"{self.value:g}"


def parse_margins(text: str, objectives: Sequence[str]) -> Mapping[str, Margin]:
    """Parses ``1%``, ``0.05`` or ``clip=1%,image_reward=0.05``; objectives without a margin get 1 %.

    Args:
        text: The text after ``--margin``.
        objectives: The plain names of all objectives.

    Raises:
        UserError: If the text is no margin, names an unknown objective, or is not positive.
    """
    margins = dict.fromkeys(objectives, Margin(0.01, relative=True))
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.rpartition("="))
        if equals and name not in margins:
            raise unknown_name("objective in the margin", name, objectives)
        margin = _parse_margin(value)
        margins.update({name: margin} if equals else dict.fromkeys(objectives, margin))
    return margins


def _parse_margin(text: str) -> Margin:
    relative = text.endswith("%")
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        raise UserError(f"Margin {text!r} is not a number; {_FORMS}.") from None
    if not 0 < value < float("inf"):
        raise UserError(f"Margin {text!r} must be positive and finite; {_FORMS}.")
    return Margin(value / 100, relative=True) if relative else Margin(value, relative=False)
