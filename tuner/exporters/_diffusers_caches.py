"""Feature caches as source code that knows diffusers alone."""

from __future__ import annotations

from tuner.feature_cache import FeatureCache, FirstBlockCache, MagCache, TaylorSeerCache
from tuner.models._caching import ATTENTIONS


def cache_import(cache: FeatureCache) -> str:
    """Writes the import of diffusers' configuration of a cache."""
    names = {"first_block": "FirstBlockCache", "taylorseer": "TaylorSeerCache", "mag": "MagCache"}
    return f"from diffusers import {names.get(cache.kind, 'PyramidAttentionBroadcast')}Config"


def cache_config(cache: FeatureCache) -> str:
    """Writes diffusers' configuration of a cache as `tuner.models._caching` makes it."""
    sigma = "lambda: float(pipe.scheduler.sigmas[pipe.scheduler.done])"
    if isinstance(cache, FirstBlockCache):
        return f"FirstBlockCacheConfig(threshold={cache.threshold!r})"
    if isinstance(cache, TaylorSeerCache):
        attentions = None if cache.lite else [ATTENTIONS]
        return (
            f"TaylorSeerCacheConfig(cache_interval={cache.interval}, disable_cache_before_step={cache.warmup}, "
            f"max_order={cache.order}, taylor_factors_dtype=pipe.transformer.dtype, "
            f"cache_identifiers={attentions!r}, use_lite_mode={cache.lite})"
        )
    if isinstance(cache, MagCache):
        ratios = [list(pair) for pair in cache.ratios]
        nearest = f"min({ratios!r}, key=lambda pair: abs(pair[0] - sigma))[1]"
        return (
            f"MagCacheConfig(threshold={cache.threshold!r}, max_skip_steps={cache.max_skip}, "
            f"retention_ratio={cache.retention!r}, num_inference_steps=len(stage['sigmas']) - 1, "
            f"mag_ratios=torch.tensor([{nearest} for sigma in stage['sigmas'][:-1]], dtype=torch.float64))"
        )
    between = tuple(cache.between)
    return (
        f"PyramidAttentionBroadcastConfig(spatial_attention_block_skip_range={cache.spatial}, "
        f"cross_attention_block_skip_range={cache.cross}, spatial_attention_timestep_skip_range={between}, "
        f"cross_attention_timestep_skip_range={between}, current_timestep_callback={sigma})"
    )
