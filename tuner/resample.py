"""How a latent changes size between stages: (B, C, h, w) -> (B, C, h', w'), in latent space.

A video's latents (B, C, F, h, w) change size frame by frame.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Literal

from tuner.schedule import Kernel
from tuner.sigmas import aligned_sigma

if TYPE_CHECKING:
    import torch

_LANCZOS_LOBES = 3


def resize(x_BCHW: torch.Tensor, size: tuple[int, int], mode: Kernel | Literal["torch-bicubic"]) -> torch.Tensor:
    """Resizes a latent; a latent that already has the size is returned as it is.

    Bilinear, bicubic and Lanczos widen their kernel when they shrink (antialiasing), as image libraries do.
    ``torch-bicubic`` is what PyTorch calls bicubic and diffusers' scale-wise scheduler uses: a sharper kernel
    (Keys' with a = -3/4 where image libraries take -1/2) that is never widened.

    Args:
        x_BCHW: Latents, any floating dtype.
        size: Target (height, width) in latent pixels.
        mode: One of ``RESAMPLE_MODES``, or ``torch-bicubic``.
    """
    import torch.nn.functional as F

    if tuple(x_BCHW.shape[-2:]) == size:
        return x_BCHW
    if x_BCHW.ndim == 5:  # no mode mixes channels, so frames may stand where channels do
        return resize(x_BCHW.flatten(1, 2), size, mode).reshape(*x_BCHW.shape[:3], *size)
    if mode == "lanczos":
        rows = _lanczos_matrix(x_BCHW.shape[-2], size[0]).to(x_BCHW)
        columns = _lanczos_matrix(x_BCHW.shape[-1], size[1]).to(x_BCHW)
        return rows @ x_BCHW @ columns.T
    if mode in ("bilinear", "bicubic"):
        return F.interpolate(x_BCHW, size=size, mode=mode, antialias=True)
    if mode == "torch-bicubic":
        return F.interpolate(x_BCHW, size=size, mode="bicubic")
    return F.interpolate(x_BCHW, size=size, mode="nearest-exact" if mode == "nearest" else mode)


def expand_spectrum(x_BCHW: torch.Tensor, noise_BCHW: torch.Tensor, level: float, ratio: float) -> torch.Tensor:
    """Enlarges a noisy latent by its cosine spectrum: SPEED (arXiv 2605.18736, Eq. 5-6).

    The latent's coefficients become the low ones of the larger grid, and the new ones are noise of the same level;
    all are rescaled, so that the result is a latent at ``aligned_sigma(level, ratio)``.

    Args:
        x_BCHW: Latents at noise level ``level``.
        noise_BCHW: Unit noise of the larger size.
        level: Noise level.
        ratio: Growth of the side length, by name; the sizes may be rounded.
    """
    height, width = x_BCHW.shape[-2:]
    rows, columns = (_dct_matrix(side).to(x_BCHW) for side in noise_BCHW.shape[-2:])
    spectrum = level * (rows @ noise_BCHW @ columns.T)
    small_rows, small_columns = (_dct_matrix(side).to(x_BCHW) for side in (height, width))
    spectrum[..., :height, :width] = small_rows @ x_BCHW @ small_columns.T
    expanded: torch.Tensor = aligned_sigma(level, ratio) / level * (rows.T @ spectrum @ columns)
    return expanded


@functools.lru_cache(maxsize=64)
def _dct_matrix(side: int) -> torch.Tensor:
    """Builds the orthonormal matrix of the cosine transform of type II; row k holds frequency k."""
    import torch

    positions = torch.arange(side, dtype=torch.float64)
    matrix = torch.cos(math.pi / side * (positions + 0.5) * positions[:, None]) * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix


@functools.lru_cache(maxsize=64)
def _lanczos_matrix(source: int, target: int) -> torch.Tensor:
    """Builds the (target, source) matrix of one-dimensional Lanczos-3 resampling; each row sums to 1.

    Duchon, "Lanczos filtering in one and two dimensions", 1979: the kernel sinc(t) sinc(t / 3), |t| < 3.
    """
    import torch

    ratio = source / target
    widening = max(ratio, 1.0)
    centers = (torch.arange(target, dtype=torch.float64) + 0.5) * ratio - 0.5
    distance = (torch.arange(source, dtype=torch.float64) - centers[:, None]) / widening
    kernel = torch.sinc(distance) * torch.sinc(distance / _LANCZOS_LOBES)
    kernel = torch.where(distance.abs() < _LANCZOS_LOBES, kernel, torch.zeros_like(kernel))
    return kernel / kernel.sum(dim=1, keepdim=True)
