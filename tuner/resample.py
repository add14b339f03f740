"""How a latent changes size between stages: (B, C, h, w) -> (B, C, h', w'), in latent space."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from tuner.schedule import Resample

if TYPE_CHECKING:
    import torch

_LANCZOS_LOBES = 3


def resize(x_BCHW: torch.Tensor, size: tuple[int, int], mode: Resample) -> torch.Tensor:
    """Resizes a latent; a latent that already has the size is returned as it is.

    Bilinear, bicubic and Lanczos widen their kernel when they shrink (antialiasing), as image libraries do.
    ``torch-bicubic`` is what PyTorch calls bicubic and diffusers' scale-wise scheduler uses: a sharper kernel
    (Keys' with a = -3/4 where image libraries take -1/2) that is never widened.

    Args:
        x_BCHW: Latents, any floating dtype.
        size: Target (height, width) in latent pixels.
        mode: One of ``RESAMPLE_MODES``.
    """
    import torch.nn.functional as F  # noqa: N812

    if tuple(x_BCHW.shape[-2:]) == size:
        return x_BCHW
    if mode == "lanczos":
        rows = _lanczos_matrix(x_BCHW.shape[-2], size[0]).to(x_BCHW)
        columns = _lanczos_matrix(x_BCHW.shape[-1], size[1]).to(x_BCHW)
        return rows @ x_BCHW @ columns.T
    if mode in ("bilinear", "bicubic"):
        return F.interpolate(x_BCHW, size=size, mode=mode, antialias=True)
    if mode == "torch-bicubic":
        return F.interpolate(x_BCHW, size=size, mode="bicubic")
    return F.interpolate(x_BCHW, size=size, mode="nearest-exact" if mode == "nearest" else mode)


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
