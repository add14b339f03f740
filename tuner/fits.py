"""Whether a model fits a GPU, asked before its weights are loaded, and what makes it fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuner.errors import UserError
from tuner.memory import Precision, Weights, Working, needed, precision_of, weights, working

if TYPE_CHECKING:
    from tuner.models import Blueprint, ModelOptions, Size

_GIB = 2**30

TILED_ABOVE = 12 * _GIB
"""Bytes that decoding takes in bfloat16, above which it is done in tiles: half of a 24 GB card."""

_LARGEST_UNASKED = 4 * 1024 * 1024
"""Pixels, of all frames together, up to which nothing is decoded in tiles, and nothing is counted to know."""

_CHOICES: dict[str, dict[str, Any]] = {
    "--free-text-encoders": {"free_text_encoders": True},
    "--quantize int8": {"quantize": "int8"},
    "--quantize nf4": {"quantize": "nf4"},
    "--offload model": {"offload": "model"},
    "--offload group": {"offload": "group"},
    "--offload sequential": {"offload": "sequential"},
}
_PAIRS = ("--quantize nf4", "--free-text-encoders"), ("--quantize nf4", "--offload model")


def check_fits(blueprint: Blueprint, options: ModelOptions, device: str | None, share: float = 1.0) -> None:
    """Refuses a load whose weights alone exceed the memory of the GPU.

    Whoever loads a model for a user asks this first. Nothing is refused on a CPU, with a device map, or where a
    family does not say how to build its networks.

    Args:
        blueprint: The model.
        options: How it will be loaded.
        device: Torch device; None for the first GPU, if there is one.
        share: Part of the GPU that is this process's own.

    Raises:
        UserError: If they do. It names the options that make the model fit, and the memory that each comes to.
    """
    room = gpu_bytes(device)
    if room is None or options.device_map is not None:
        return
    room = int(room * min(share, 1.0))
    try:
        sizes = weights(blueprint).loaded(options)
    except UserError:
        return
    precision = precision_of(options, "cuda")
    least = sizes.at_once(precision, options.offload, bool(options.free_text_encoders))
    if least <= room:
        return
    raise UserError(
        f"Model {blueprint.name!r} needs {least / _GIB:.1f} GiB of GPU memory for its {precision} weights, and "
        f"{room / _GIB:.1f} GiB are there; {_remedies(blueprint, sizes, options, room)}"
    )


def with_tiling(blueprint: Blueprint, options: ModelOptions, size: Size) -> ModelOptions:
    """Says whether the autoencoder decodes in tiles, where the options leave it open.

    It does where decoding one image or video would take more than 12 GiB in bfloat16, and takes less in tiles. The
    device and the precision do not matter: tiles change the images, so a machine must not decide it.

    Args:
        blueprint: The model.
        options: How it will be loaded.
        size: Output (height, width) in pixels.
    """
    if options.tiling is not None or size[0] * size[1] * blueprint.frames <= _LARGEST_UNASKED:
        return options
    try:
        whole = working(blueprint, size, "bfloat16").decoding
        tiled = whole > TILED_ABOVE and working(blueprint, size, "bfloat16", tiled=True).decoding < whole
    except UserError:
        return options
    return options.model_copy(update={"tiling": True}) if tiled else options


def gpu_bytes(device: str | None) -> int | None:
    """Returns the memory of a GPU, all of it; None for other devices."""
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if not device.startswith("cuda"):
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def _remedies(blueprint: Blueprint, sizes: Weights, options: ModelOptions, room: int) -> str:
    """Names the options with which weights and one image fit; two of them where neither is enough alone."""
    beside: dict[Precision, Working] = {}
    fitting: dict[str, str] = {}
    for names in (*((name,) for name in _CHOICES), *_PAIRS):
        chosen = options.model_copy(update={field: it for name in names for field, it in _CHOICES[name].items()})
        if chosen == options or not _possible(chosen) or any(name in fitting for name in names):
            continue
        precision = precision_of(chosen, "cuda")
        if precision not in beside:
            beside[precision] = _beside(blueprint, precision, bool(options.tiling))
        most = needed(sizes, beside[precision], precision, chosen.offload, bool(chosen.free_text_encoders))
        if most <= room:
            fitting[" ".join(names)] = f"{' '.join(names)} ({most / _GIB:.1f})"
    if not fitting:
        return "no option makes it fit; use a larger GPU, or --device-map balanced with several."
    return f"add one of these, with which it and one image need so many GiB: {', '.join(fitting.values())}."


def _beside(blueprint: Blueprint, precision: Precision, tiled: bool) -> Working:
    """Returns what one image takes beside the weights, or nothing where that cannot be counted."""
    try:
        return working(blueprint, blueprint.size, precision, tiled)
    except UserError:
        return Working(call=0, decoding=0)


def _possible(options: ModelOptions) -> bool:
    """Whether options work together: bitsandbytes moves no layers, and a LoRA may belong to text encoders."""
    layers = options.offload in ("group", "sequential")
    kept_text = options.lora or options.offload
    return not (options.quantize and layers) and not (options.free_text_encoders and kept_text)
