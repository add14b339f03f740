"""``tuner search --dry-run``: what a search costs, before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from tuner.cli._common import print_json, print_table, say
from tuner.devices import Speed, speed_at, speed_of
from tuner.errors import UserError
from tuner.tables import Cells

if TYPE_CHECKING:
    from studies import Estimate, SearchSettings

_GIB = 2**30


def check_only_dry(asked: Mapping[str, object]) -> None:
    """Refuses options of a dry run in a search that runs.

    Raises:
        UserError: If one of them is given.
    """
    for option, value in asked.items():
        if value is not None:
            raise UserError(f"{option} is for --dry-run, and this search runs on its own workers; leave it out.")


def print_estimate(
    settings: SearchSettings,
    device: str | None,
    device_tflops: float | None,
    price_per_hour: float | None,
    as_json: bool,
) -> None:
    """Prints what a search costs at most, in TFLOPs, memory, and for a known device in time and money.

    Raises:
        UserError: If an option means nothing, or if two of them contradict each other.
    """
    speed = _speed(device, device_tflops)
    if price_per_hour is not None and not 0 <= price_per_hour < float("inf"):
        raise UserError(f"--price-per-hour {price_per_hour:g} must be 0 or more, and finite.")

    from studies import estimate

    found = estimate(settings, speed, price_per_hour)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    parts = {
        "baseline": found.baseline,
        "references": found.references,
        f"{found.trials} proposals": found.proposals,
        "check on unseen prompts": found.held_out,
        "total": found.total,
    }
    rows = [(part, f"{tflops:,.0f}" if tflops >= 1000 else f"{tflops:.4g}") for part, tflops in parts.items()]
    header = ("part", "TFLOPs at most")
    print_table(Cells(header, rows, key=header, title=f"Study {found.study}"))
    for line in (*_memory_lines(found), *_time_lines(found)):
        say(line)


def _speed(device: str | None, tflops: float | None) -> Speed | Literal["here"] | None:
    if device is not None and tflops is not None:
        raise UserError("--device and --device-tflops both name the device; give one of them.")
    if device == "here":
        return "here"
    if device is not None:
        return speed_of(device)
    return None if tflops is None else speed_at(tflops)


def _memory_lines(found: Estimate) -> list[str]:
    if (memory := found.memory) is None:
        return []
    sizes = (memory.weights_bytes, memory.text_bytes, memory.activations_bytes, memory.decoding_bytes)
    weights, text, batch, decoding = (f"{size / _GIB:.3g}" for size in sizes)
    return [
        f"memory of a worker: {memory.total_bytes / _GIB:.3g} GiB; {weights} of {memory.precision} weights, "
        f"{text} of text encoders, at most {batch} to draw a batch of {memory.images} and {decoding} to decode "
        "one; scorers come on top"
    ]


def _time_lines(found: Estimate) -> list[str]:
    from studies.report.numbers import duration

    if found.hours is None or found.gpu_hours is None:
        return [
            f"{found.images} images; for times, add --device NAME, --device-tflops N, or --device here, which "
            "loads the weights"
        ]
    beside = "" if found.seconds_per_image else ", decoding and scoring not counted"
    workers = "worker" if found.workers == 1 else "workers"
    money = "" if found.money is None else f", {found.money:.2f} to pay in all at the given price per hour"
    return [
        f"at most {duration(3600 * found.hours)} on {found.workers} {workers} ({found.device}: {found.basis}), "
        f"{found.gpu_hours:.3g} hours of workers{money}; {found.images} images{beside}",
        "many schedules are stopped after a part of the prompts, so it will be less",
    ]
