"""A worker's cache of tensors, which gives large ones of a GPU to the machine's memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from studies.work.reuse import LIMIT, LimitedCache, tensor_bytes
from tuner.memory import machine_bytes

if TYPE_CHECKING:
    import torch

LARGE = 4 * 2**20
"""Bytes from which a value leaves the GPU: latents of a video take 8 to 30 MB, those of an image 1 MB or less."""

_HOST = 4  # as many bytes in the machine's memory as on the device
_SHARE = 32  # but no more than one in so many of the machine's: eight workers take a quarter

T = TypeVar("T")
_Away: TypeAlias = "tuple[Any, torch.device]"
"""A value in the machine's memory, and the device that it came from."""


class TensorCache:
    """Caches tensors and mappings of tensors. What is large and on a GPU waits in pinned memory of the machine.

    A GPU's memory is for the model. The machine has room for the latents of all prompts of a search: 4 GiB hold
    those of 140 videos of HunyuanVideo at its default size, and 1 GiB on the GPU would hold those of 35.

    Args:
        limit: Bytes of the values that stay where they are. Four times as many may wait in the machine's memory,
            at most a 32nd of it.
    """

    def __init__(self, limit: int = LIMIT):
        self._here = LimitedCache(limit)
        self._host = LimitedCache(
            min(_HOST * limit, (machine_bytes() or sys.maxsize) // _SHARE), lambda away: tensor_bytes(away[0])
        )

    def __contains__(self, key: Hashable) -> bool:
        """Whether a key is cached; asking does not count as use."""
        return key in self._here or key in self._host

    def get(self, key: Hashable) -> Any:
        """Returns the cached value, on the device that it came from, or None."""
        away: _Away | None = self._host.get(key)
        if away is None:
            return self._here.get(key)
        value, device = away
        return _each(value, lambda tensor: tensor.to(device, non_blocking=True))

    def keep(self, key: Hashable, value: T) -> T:
        """Caches a value unless it exceeds the limit alone, and returns it."""
        device = gpu_of(value)
        if device is None or tensor_bytes(value) < LARGE:
            return self._here.keep(key, value)
        self._host.keep(key, (_each(value, _to_host), device))
        return value

    def clear(self) -> None:
        """Empties the cache."""
        self._here.clear()
        self._host.clear()

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Returns the cached value; makes and caches it on a miss."""
        kept: T | None = self.get(key)
        return kept if kept is not None else self.keep(key, make())


def gpu_of(value: Any) -> torch.device | None:
    """Returns the GPU that a tensor or a mapping of tensors is on; None elsewhere."""
    first: torch.Tensor = next(iter(value.values())) if isinstance(value, Mapping) else value
    return first.device if first.is_cuda else None


def _each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, Mapping):
        return {name: change(tensor) for name, tensor in value.items()}
    return change(value)


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    try:
        return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)
    except RuntimeError:  # the system lets no more memory be pinned
        return tensor.cpu()
