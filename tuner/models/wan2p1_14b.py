"""Wan 2.1 14B: the larger model of the Wan 2.1 family."""

from dataclasses import replace

from tuner.models.wan2p1_1p3b import BLUEPRINT as SMALLER

BLUEPRINT = replace(
    SMALLER,
    name="wan2.1-14b",
    source="Wan-AI/Wan2.1-T2V-14B-Diffusers",
    transformer=dict(SMALLER.transformer) | {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40},
)
