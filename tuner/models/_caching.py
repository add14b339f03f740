"""Feature caches on networks of diffusers, whose own hooks do the work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tuner.errors import UserError
from tuner.feature_cache import FeatureCache, FirstBlockCache, MagCache, TaylorSeerCache

ATTENTIONS = r"(single_transformer_|transformer_)?blocks\.\d+\.attn\d?"
"""Names of all self- and cross-attentions; diffusers' own default misses ``attn1`` and ``attn2``."""


@contextlib.contextmanager
def caching(
    network: Any, cache: FeatureCache, sigmas: Sequence[float], current: Callable[[], float]
) -> Iterator[None]:
    """Turns an empty cache on in a network; after the context the network is as it was found.

    Args:
        network: A transformer of diffusers.
        cache: What to turn on.
        sigmas: Noise levels of the calls that will be made.
        current: Returns the noise level of the call that is being made.

    Raises:
        UserError: If the network cannot be cached in this way.
    """
    name = type(network).__name__
    if not hasattr(network, "enable_cache"):
        raise UserError(f"Cache {cache.kind!r} does not work with {name}, which has no caching; leave it out.")
    if isinstance(cache, FirstBlockCache) and not _alike(network):
        raise UserError(f"Cache {cache.kind!r} does not know the blocks of {name}; use another kind.")
    found = {module: _hooked(module) for module in network.modules()}
    config = _config(cache, network, sigmas, current)
    try:
        try:
            network.enable_cache(config)
        except ValueError as error:
            network._cache_config = config  # so that disabling removes the hooks that were set before the error
            raise UserError(
                f"Cache {cache.kind!r} does not know the blocks of {name}; use another kind."
            ) from error
        if all(_hooked(module) == before for module, before in found.items() if module is not network):
            raise UserError(
                f"Cache {cache.kind!r} finds nothing in {name} that it could repeat; use another kind."
            )
        yield
    finally:
        network.disable_cache()
        for module, before in found.items():
            for attribute in _hooked(module) - before:
                delattr(module, attribute)


def named_call(network: Any, name: str) -> contextlib.AbstractContextManager[None]:
    """Tells the cache of a network, if it has one, which of the guidance passes a call is."""
    if not getattr(network, "is_cache_enabled", False):
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[None] = network.cache_context(name)
    return context


def _alike(network: Any) -> bool:
    """Whether the first and the last block hand on the same kinds of features, as the first-block hooks assume."""
    from diffusers.hooks._common import _ALL_TRANSFORMER_BLOCK_IDENTIFIERS as NAMES
    from diffusers.hooks._helpers import TransformerBlockRegistry

    blocks = [block for name, group in network.named_children() if name in NAMES for block in group]
    try:
        ends = [TransformerBlockRegistry.get(type(block)) for block in (blocks[0], blocks[-1])]
    except ValueError:
        return False
    first, last = (end.return_encoder_hidden_states_index is None for end in ends)
    return first == last


def _hooked(module: Any) -> set[str]:
    """Returns the attributes that diffusers' hooks add to a module and leave there."""
    return {"_diffusers_hook", "forward", "_cache_config"} & set(vars(module))


def _config(cache: FeatureCache, network: Any, sigmas: Sequence[float], current: Callable[[], float]) -> Any:
    import torch
    from diffusers import hooks

    if isinstance(cache, FirstBlockCache):
        return hooks.FirstBlockCacheConfig(threshold=cache.threshold)
    if isinstance(cache, TaylorSeerCache):
        return hooks.TaylorSeerCacheConfig(
            cache_interval=cache.interval,
            disable_cache_before_step=cache.warmup,
            max_order=cache.order,
            taylor_factors_dtype=network.dtype,
            cache_identifiers=None if cache.lite else [ATTENTIONS],
            use_lite_mode=cache.lite,
        )
    if isinstance(cache, MagCache):
        # Doubles on the CPU: the very arithmetic that the price is computed with.
        ratios = torch.tensor(cache.at(sigmas), dtype=torch.float64, device="cpu")
        return hooks.MagCacheConfig(
            threshold=cache.threshold,
            max_skip_steps=cache.max_skip,
            retention_ratio=cache.retention,
            num_inference_steps=len(sigmas),
            mag_ratios=ratios,
        )
    return hooks.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=cache.spatial,
        cross_attention_block_skip_range=cache.cross,
        spatial_attention_timestep_skip_range=cache.between,
        cross_attention_timestep_skip_range=cache.between,
        current_timestep_callback=current,
    )
