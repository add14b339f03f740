"""Blueprints whose cost is counted in milliseconds."""

from __future__ import annotations

import functools
from dataclasses import replace

from tuner.models import Blueprint, blueprint


@functools.cache
def small_blueprint() -> Blueprint:
    """FLUX with a transformer of one block of each kind, 128 x 128 by default; nothing of it needs weights."""
    flux = blueprint("flux")
    transformer = dict(flux.transformer) | {
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 24,
        "axes_dims_rope": (4, 6, 6),
    }
    return replace(flux, name="small", transformer=transformer, height=128, width=128, text_tokens=8)
