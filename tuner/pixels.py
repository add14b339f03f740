"""How a clean latent changes size by way of its image: decode, resize or super-resolve, encode.

MrFlow (arXiv 2607.01642) enlarges between its stages so, with a GAN-based super-resolution network.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tuner.errors import UserError, one_line
from tuner.models.base import FlowModel, Size

if TYPE_CHECKING:
    import torch
    from PIL import Image


def resize_pixels(model: FlowModel, x_BCHW: torch.Tensor, size: Size, upscaler: str = "") -> torch.Tensor:
    """Brings clean latents to another size in pixel space.

    Args:
        model: Decodes and encodes.
        x_BCHW: Clean latents.
        size: Target (height, width) in pixels.
        upscaler: File of a super-resolution network that spandrel reads; what it gives is resized to the target
            by Lanczos resampling, as without it.

    Raises:
        UserError: If the model cannot encode images or makes videos, or the upscaler cannot be read.
    """
    if model.blueprint.fps is not None:
        raise UserError(
            f"{model.blueprint.name} makes videos, which `resample: pixel` cannot resize; use another mode."
        )
    from PIL import Image

    from tuner.invariance import decode_each

    images = decode_each(model, x_BCHW)
    if upscaler:
        images = _super_resolve(images, upscaler, str(x_BCHW.device))
    resized = [image.resize(size[::-1], Image.Resampling.LANCZOS) for image in images]
    return model.encode_images(resized)


def _super_resolve(images: Sequence[Image.Image], file: str, device: str) -> list[Image.Image]:
    """Enlarges images one by one by the network's own factor."""
    import torch
    from torchvision.transforms.functional import pil_to_tensor, to_pil_image

    network = _load_upscaler(file, device)
    enlarged = []
    with torch.no_grad():
        for image in images:
            pixels_CHW = pil_to_tensor(image.convert("RGB")).to(device, torch.float32) / 255
            enlarged.append(to_pil_image(network(pixels_CHW[None])[0].clamp(0, 1).cpu()))
    return enlarged


@functools.lru_cache(maxsize=2)
def _load_upscaler(file: str, device: str) -> Any:
    try:
        from spandrel import ImageModelDescriptor, ModelLoader
    except ImportError as error:
        raise UserError(
            "An upscaler is read by spandrel, which is not installed; run `pip install spandrel`."
        ) from error
    try:
        network = ModelLoader(device=device).load_from_file(file)
    except Exception as error:  # spandrel raises what the file's reader raises
        raise UserError(f"Upscaler {file!r} cannot be read by spandrel: {one_line(error)}") from error
    if not isinstance(network, ImageModelDescriptor):
        raise UserError(
            f"Upscaler {file!r} does not turn one image into one image; give a super-resolution network."
        )
    return network.eval()
