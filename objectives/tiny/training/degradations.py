"""Ways to spoil an image by a known amount, so that a reward can learn which of two is better.

Every function takes pixels (B, 3, H, W) in [0, 1], amounts (B,) in [0, 1] and a generator, and returns pixels of
the same shape; a larger amount is never better. They imitate what too few steps, too little renoising and
resizing between stages do to an image: softness, residual noise, blotches, ghosts of two layouts, bent
outlines, washed-out colours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Degradation = Callable[[Tensor, Tensor, torch.Generator], Tensor]


def blur(pixels: Tensor, amounts: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian blur of 0.3 to 2.3 pixels."""
    sigma = 0.3 + 2 * amounts
    offsets = torch.arange(-5, 6)
    kernel = torch.exp(-(offsets**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)  # (3B, 11)
    batch, _, height, width = pixels.shape
    x = F.pad(pixels, (5, 5, 5, 5), mode="replicate").reshape(1, 3 * batch, height + 10, width + 10)
    x = F.conv2d(x, kernel[:, None, :, None], groups=3 * batch)
    x = F.conv2d(x, kernel[:, None, None, :], groups=3 * batch)
    return x.reshape(batch, 3, height, width)


def noise(pixels: Tensor, amounts: Tensor, generator: torch.Generator) -> Tensor:
    """White noise with a standard deviation of 0.01 to 0.16."""
    return pixels + _per_image(0.01 + 0.15 * amounts) * torch.randn(pixels.shape, generator=generator)


def blotches(pixels: Tensor, amounts: Tensor, generator: torch.Generator) -> Tensor:
    """Noise that is smooth over 4 or 8 pixels, as a decoder makes of noise that is left in a latent."""
    batch, _, height, width = pixels.shape
    cell = 4 if torch.rand(1, generator=generator) < 0.5 else 8
    coarse = torch.randn((batch, 3, height // cell, width // cell), generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic")
    return pixels + _per_image(0.01 + 0.15 * amounts) * smooth


def resize(pixels: Tensor, amounts: Tensor, generator: torch.Generator) -> Tensor:
    """Down to 3/4 (amount 0) or 3/8 (amount 1) of the size and back, in four steps of strength."""
    size = pixels.shape[-1]
    mode = ("bilinear", "bicubic", "nearest")[int(torch.randint(3, (1,), generator=generator))]
    spoiled = pixels.clone()
    for level, divisor in enumerate((12, 10, 8, 6)):
        chosen = (4 * amounts).long().clamp(max=3) == level
        if chosen.any():
            small = F.interpolate(pixels[chosen], size=size * divisor // 16, mode="area")
            spoiled[chosen] = F.interpolate(small, size=size, mode=mode)
    return spoiled


def bend(pixels: Tensor, amounts: Tensor, generator: torch.Generator) -> Tensor:
    """A smooth random displacement of up to a few pixels: straight edges and circles lose their shape."""
    batch, _, height, width = pixels.shape
    field = torch.randn((batch, 2, height // 8, width // 8), generator=generator)
    field = F.interpolate(field, size=(height, width), mode="bicubic").permute(0, 2, 3, 1)
    identity = torch.eye(2, 3).expand(batch, 2, 3)
    grid = F.affine_grid(identity, [batch, 3, height, width], align_corners=False)
    shift = _per_image(0.01 + 0.05 * amounts) * field
    return F.grid_sample(pixels, grid + shift, padding_mode="border", align_corners=False)


def fade(pixels: Tensor, amounts: Tensor, generator: torch.Generator) -> Tensor:
    """Contrast reduced by 3 to 50 per cent around the image's mean colour, as too few steps do."""
    mean = pixels.mean(dim=(2, 3), keepdim=True)
    return mean + _per_image(0.97 - 0.47 * amounts) * (pixels - mean)


def ghost(pixels: Tensor, others: Tensor, amounts: Tensor) -> Tensor:
    """A blend with another image of the same caption, 4 to 50 per cent of it."""
    return torch.lerp(pixels, others, _per_image(0.04 + 0.46 * amounts))


DEGRADATIONS: tuple[Degradation, ...] = (blur, noise, blotches, resize, bend, fade)


def quantise(pixels: Tensor) -> Tensor:
    """Rounds pixels to the 256 levels of an image file."""
    return (pixels.clamp(0, 1) * 255).round() / 255


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]
