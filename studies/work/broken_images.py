"""Detects images that must not be scored: not finite, all black, or all one colour.

A scorer gives a number to a black square, too, and a mean hides it. Such images come from overflow in half
precision, from a broken cache, or from a schedule that diverges. An overflow of the network shows in the latents;
an overflow of the autoencoder shows when pixels become bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from tuner.invariance import decode_each

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from tuner.models import FlowModel

Fault: TypeAlias = Literal["not finite", "all black", "all one colour"]


def decode_and_check(
    model: FlowModel, latents_BCHW: torch.Tensor, finite: Sequence[bool]
) -> tuple[list[Image], list[Fault | None]]:
    """Decodes latents one by one and checks the images.

    Args:
        model: The model of the latents.
        latents_BCHW: Clean latents, (B, C, h, w).
        finite: Whether each of the B latents is finite; the others are not decoded.

    Returns:
        The decoded images, and the fault of each of the B latents or None.
    """
    import numpy as np

    images: list[Image] = []
    faults: list[Fault | None] = []
    for row, is_finite in zip(latents_BCHW, finite, strict=True):
        if not is_finite:
            faults.append("not finite")
            continue
        try:
            with np.errstate(invalid="raise"):  # NaN has no byte: numpy casts it to anything and only warns
                image = decode_each(model, row[None])[0]
        except FloatingPointError:
            faults.append("not finite")
            continue
        images.append(image)
        faults.append(fault_of(image))
    return images, faults


def fault_of(image: Image | Sequence[Image]) -> Fault | None:
    """Returns the fault of an image, or of a video if all of its frames have one; else None."""
    if isinstance(image, Sequence):
        faults = [fault_of(frame) for frame in image]
        return faults[0] if len(set(faults)) == 1 else None if None in faults else "all one colour"
    colours = image.convert("RGB").getcolors(maxcolors=1)
    if colours is None:
        return None
    return "all black" if colours[0][1] == (0, 0, 0) else "all one colour"


def fault_counts(faults: Sequence[Fault | None]) -> dict[str, int]:
    """Counts each fault; empty if there is none."""
    return dict(Counter(fault for fault in faults if fault is not None))


def summary(counts: Mapping[str, int], images: int) -> str:
    """Writes counts as text, e.g. ``3 of 8 images are degenerate: 2 not finite, 1 all black``."""
    listed = ", ".join(f"{number} {fault}" for fault, number in counts.items())
    return f"{sum(counts.values())} of {images} images are degenerate: {listed}"
