"""Memory of the tensors beside the weights, counted on meta tensors: nothing is loaded or computed."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from tuner.models._diffusers import PipelineBlueprint
    from tuner.models._parts import Part
    from tuner.models.base import Blueprint, Size

_COLOURS = 3
_SAMPLE_SIZE = 1024  # of every published AutoencoderKL here, which makes its tiles as large
_PIECES = 4
"""Images' worth of decoded tiles: overlapping ones, 16/9 at a quarter's overlap; rows of them; the whole."""


def activation_bytes(blueprint: Blueprint, size: Size, network_bytes: int, dtype: str) -> int:
    """Bounds the bytes that tensors beside the weights take at once while one velocity of one image is computed.

    Attention keeps no matrix of scores, as in fused kernels. Guidance passes that run in one batch all count; of
    those that run one after the other, one does.

    Args:
        blueprint: The model.
        size: Height and width in pixels.
        network_bytes: Bytes of the weights of the network that a pass runs, in this precision.
        dtype: Torch dtype name of the weights.
    """
    live = _Live()
    with _of_type(dtype), _FusedAttention(), live:
        blueprint.meta_forward(size)
    together = blueprint.passes if getattr(blueprint, "batched_guidance", True) else blueprint.counted_passes
    return (live.most - network_bytes) * together // blueprint.counted_passes


def decoding_bytes(
    blueprint: PipelineBlueprint, autoencoder: Part, size: Size, dtype: str, tiled: bool = False
) -> int:
    """Bounds the bytes that tensors beside the weights take at once while one image or video is decoded.

    Args:
        blueprint: The model.
        autoencoder: What decodes.
        size: Height and width in pixels.
        dtype: Torch dtype name of the weights.
        tiled: Whether it decodes in tiles. One of them is counted, and beside it the decoded tiles and what is
            made of them.
    """
    live, pieces = _Live(), 0
    with _of_type(dtype):
        network = autoencoder.build()
        if tiled and (tile := _tile(network, autoencoder, size)) != size:
            pieces = _PIECES * blueprint.frames * size[0] * size[1] * _COLOURS * torch.get_default_dtype().itemsize
            size = tile
        with _FusedAttention(), live:
            blueprint.meta_decode(network, size)
    return live.most + pieces


def _tile(network: Any, autoencoder: Part, size: Size) -> Size:
    """Returns the size of the tiles of an image: all of it for an autoencoder that has no tiles."""
    if not hasattr(network, "use_tiling"):
        return size
    said = "sample_size" in autoencoder.config
    usual = getattr(network, "tile_sample_min_size", _SAMPLE_SIZE) if said else _SAMPLE_SIZE
    height, width = (getattr(network, f"tile_sample_min_{side}", usual) for side in ("height", "width"))
    return min(height, size[0]), min(width, size[1])


@contextlib.contextmanager
def _of_type(dtype: str) -> Iterator[None]:
    """Makes tensors of a precision where nobody says which."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        yield
    finally:
        torch.set_default_dtype(before)


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
