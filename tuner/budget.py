"""The compute budget of an image, and the text after ``--budget``."""

from __future__ import annotations

import decimal
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.errors import UserError
from tuner.flops import tflops_per_call, tflops_per_pass

if TYPE_CHECKING:
    from collections.abc import Callable

    from tuner.flops import Price
    from tuner.latency import LatencyTable
    from tuner.models import Blueprint, Size

ROUNDING = 1e-9
"""Relative slack of comparisons with a limit: 20 of 50 steps cost 40 % of the baseline only up to rounding."""


@dataclass(frozen=True)
class TimeLimit:
    """Seconds that one image may take.

    Attributes:
        seconds: The limit.
        latency: How long network calls and all else take, as measured.
    """

    seconds: float
    latency: LatencyTable

    def allows(self, price: Price) -> bool:
        """Whether a schedule of this price fits."""
        return self.latency.seconds(price) <= self.seconds * (1 + ROUNDING)


@dataclass(frozen=True)
class Budget:
    """Upper limits of the cost of one image.

    Attributes:
        tflops: Limit in TFLOPs per image.
        nfe: Limit in network forward passes per image; None for no such limit.
        time: Limit in measured seconds per image; None for no such limit.
    """

    tflops: float
    nfe: int | None = None
    time: TimeLimit | None = None

    @property
    def limit(self) -> float:
        """The most that an image may cost, as ``cost`` counts it."""
        return self.tflops if self.time is None else self.time.seconds

    def cost(self, price: Price) -> float:
        """The cost that a search minimises: measured seconds if they are limited, else TFLOPs."""
        return price.tflops if self.time is None else self.time.latency.seconds(price)

    def allows(self, price: Price) -> bool:
        """Whether a schedule of this price fits."""
        return (
            price.tflops <= self.tflops * (1 + ROUNDING)
            and (self.nfe is None or price.nfe <= self.nfe)
            and (self.time is None or self.time.allows(price))
        )


_PATTERN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(x|%|t|nfe|s)", re.IGNORECASE)
_FORMS = (
    "write 3x (a third of the baseline's TFLOPs), 40% (of them), 1200T (TFLOPs per image), 4s (measured seconds "
    "per image) or 16nfe (network forward passes per image)"
)


def read_budget(text: str) -> tuple[float, str]:
    """Splits ``3x``, ``40%``, ``1200T``, ``4s`` or ``16nfe`` into the number and the unit in lower case.

    Raises:
        UserError: If the text is no budget.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise UserError(f"Budget {text!r} is not a budget; {_FORMS}.")
    number, unit = float(match[1]), match[2].lower()
    if not 0 < number < math.inf:
        raise UserError(f"Budget {text!r} must be a positive, finite number; {_FORMS}.")
    if unit == "nfe" and number != int(number):
        raise UserError(f"Budget {text!r} must be a whole number of network forward passes, such as 16nfe.")
    return number, unit


def parse_budget(
    text: str,
    baseline: Price,
    blueprint: Blueprint,
    size: Size,
    latencies: Callable[[], LatencyTable] | None = None,
) -> Budget:
    """Turns ``3x``, ``40%``, ``1200T``, ``4s`` or ``16nfe`` into limits per image.

    ``3x``, ``40%`` and ``1200T`` limit the TFLOPs and leave the number of network calls open. ``16nfe`` limits the
    network calls at whatever size they run; as no call costs more than one at full size, the TFLOPs limit is then
    that of as many full-size calls. ``4s`` limits the seconds as measured on the device that runs; the TFLOPs
    limit is then the most that any schedule can spend in that time.

    Args:
        text: What the user wrote.
        baseline: Price of the model's own default sampler at this size.
        blueprint: The model.
        size: Output (height, width) in pixels.
        latencies: Measures the device; called for a budget in seconds alone, which needs it.

    Raises:
        UserError: If the text is no budget, or is dearer than the baseline, or buys less than one full-size
            step, which every schedule ends with.
    """
    number, unit = read_budget(text)
    if unit == "s":
        if latencies is None:
            raise ValueError("a budget in seconds needs `latencies`.")
        return _in_seconds(text, number, latencies(), baseline, blueprint, size)
    step = tflops_per_call(blueprint, size)
    if unit == "nfe":
        per_step = blueprint.passes
        limit = Budget(number / per_step * step, int(number))
        budget, dearest, smallest = limit, f"{baseline.nfe}nfe", f"{per_step}nfe"
    elif unit == "x":
        budget, dearest, smallest = Budget(baseline.tflops / number), "1x", f"{_down(baseline.tflops / step)}x"
    elif unit == "%":
        share = 100 * step / baseline.tflops
        budget, dearest, smallest = Budget(number / 100 * baseline.tflops), "100%", f"{_up(share)}%"
    else:
        budget, dearest, smallest = Budget(number), f"{_down(baseline.tflops)}T", f"{_up(step)}T"
    if budget.tflops > baseline.tflops * (1 + ROUNDING):
        raise UserError(
            f"Budget {text!r} is dearer than the baseline ({baseline.tflops:.6g} TFLOPs, {baseline.nfe} NFE per "
            f"image), and a search is for something cheaper; write at most {dearest}."
        )
    if budget.tflops < step * (1 - ROUNDING):
        raise UserError(
            f"Budget {text!r} buys {budget.tflops:.6g} TFLOPs per image, but the last step runs at full size and "
            f"costs {step:.6g} on {blueprint.name}; the smallest budget is {smallest}."
        )
    return budget


def _in_seconds(
    text: str, seconds: float, latency: LatencyTable, baseline: Price, blueprint: Blueprint, size: Size
) -> Budget:
    full, least = latency.seconds(baseline), latency.around_s + blueprint.passes * latency.pass_seconds(size)
    on = f"on {latency.device}"
    if seconds > full * (1 + ROUNDING):
        raise UserError(
            f"Budget {text!r} is dearer than the baseline, which takes {full:.4g} s per image {on}, and a search "
            f"is for something cheaper; write at most {_down(full)}s."
        )
    if seconds < least * (1 - ROUNDING):
        raise UserError(
            f"Budget {text!r} is less than encoding, decoding and the last step, at full size, take: "
            f"{least:.4g} s per image of {blueprint.name} {on}; the smallest budget is {_up(least)}s."
        )
    rates = [tflops_per_pass(blueprint, stage_size) / time for stage_size, time in latency.pass_s.items()]
    return Budget((seconds - latency.around_s) * max(rates), time=TimeLimit(seconds, latency))


def _down(value: float) -> str:
    """Writes a number with at most four digits that is not above ``value``, but for rounding."""
    return _cut(value * (1 + ROUNDING), decimal.ROUND_FLOOR)


def _up(value: float) -> str:
    """Writes a number with at most four digits that is not below ``value``, but for rounding."""
    return _cut(value * (1 - ROUNDING), decimal.ROUND_CEILING)


def _cut(value: float, rounding: str) -> str:
    return f"{decimal.Context(prec=4, rounding=rounding).create_decimal_from_float(value).normalize():f}"
