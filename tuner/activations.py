"""Memory of the activations of a network call, counted on meta tensors: nothing is loaded or computed."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from tuner.models.base import Blueprint, Size


def activation_bytes(blueprint: Blueprint, size: Size, network_bytes: int) -> int:
    """Bounds the bytes that tensors beside the weights take at once while one velocity of one image is computed.

    The network runs in single precision, with attention that keeps no matrix of scores, as fused kernels do. Where
    guidance makes more passes, they are taken to run in one batch. Lower precisions, and passes that run one after
    the other, need less.

    Args:
        blueprint: The model.
        size: Height and width in pixels.
        network_bytes: Bytes of the weights of the network that a pass runs, in single precision.
    """
    live = _Live()
    with _FusedAttention(), live:
        blueprint.meta_forward(size)
    return (live.most - network_bytes) * blueprint.passes // blueprint.counted_passes


class _FusedAttention(TorchFunctionMode):
    """Replaces attention by its result's shape: on meta tensors it would make the whole matrix of scores."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, _, value = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))[:3]
            return query.new_empty(*query.shape[:-1], value.shape[-1])
        return func(*args, **kwargs)


class _Live(TorchDispatchMode):
    """Adds up the bytes of all tensors that are alive.

    Attributes:
        most: The most bytes at any time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._follow(leaf.untyped_storage())
        return made

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, taken = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self._now += taken
            self.most = max(self.most, self._now)
            weakref.finalize(storage, self._forget, key, taken)

    def _forget(self, key: int, taken: int) -> None:
        self._known.discard(key)
        self._now -= taken
