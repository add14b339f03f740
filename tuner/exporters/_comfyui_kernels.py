"""Which kernels resize latents in ComfyUI as ours do."""

from __future__ import annotations

KERNELS = {"nearest": "nearest-exact", "bilinear": "bilinear", "area": "area", "torch-bicubic": "bicubic"}
"""ComfyUI's name of the kernel that resizes latents as ours does; bilinear only where it enlarges."""

SUBSTITUTES = ("nearest-exact", "bilinear", "area", "bicubic", "bislerp", "pixel")
"""What may take the place of another kernel: methods of ``LatentUpscaleBy``, or a resized image."""


def inexact(kernel: str, shrinks: bool, patches: bool) -> str:
    """Says why a change of size is not ours; empty where it is.

    Args:
        kernel: Our name.
        shrinks: Whether height or width gets smaller.
        patches: Whether ComfyUI's latents hold patches of 2 x 2 pixels of ours.
    """
    if kernel == "pixel":
        return "resample 'pixel' rounds an image to 8 bits, where its nodes cut off"
    if kernel not in KERNELS:
        return f"it has no kernel {kernel!r} for latents"
    if patches:
        return "it resizes patches of this model's latents, and `tuner` the latents themselves"
    if kernel == "bilinear" and shrinks:
        return "its kernel 'bilinear' does not average where it shrinks"
    return ""
