"""The random numbers of a training step, the same for any number of processes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LEAST_LEVEL = 0.02


class Draws:
    """One process's rows of the numbers that all processes draw together.

    Args:
        key: What the numbers depend on, e.g. seed, step and purpose.
        rank: Number of this process, from 0.
        processes: How many there are.
    """

    def __init__(self, key: str, rank: int = 0, processes: int = 1):
        import torch

        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._rank = rank
        self._processes = processes

    def images(self, available: int, batch: int) -> list[int]:
        """Chooses this process's images of a batch in which none comes twice."""
        import torch

        order = torch.randperm(available, generator=self._generator)
        return order[self._rank * batch : (self._rank + 1) * batch].tolist()

    def levels(self, like_BChw: torch.Tensor, top: float, shift: float) -> torch.Tensor:
        """Draws a noise level for each image (B,): uniform up to ``top``, then shifted towards 1 by ``shift``."""
        import torch

        batch = len(like_BChw)
        uniform = torch.rand(self._processes * batch, generator=self._generator)
        levels = LEAST_LEVEL + uniform[self._rank * batch : (self._rank + 1) * batch] * (top - LEAST_LEVEL)
        return (shift * levels / (1 + (shift - 1) * levels)).to(like_BChw.device)

    def noise(self, like_BChw: torch.Tensor) -> torch.Tensor:
        """Draws unit noise in the shape of a batch; it is drawn on the CPU, the same for every device."""
        import torch

        batch = len(like_BChw)
        every = torch.randn(self._processes * batch, *like_BChw.shape[1:], generator=self._generator)
        return every[self._rank * batch : (self._rank + 1) * batch].to(like_BChw.device)
