"""Stable Diffusion 3.5 Large: the family of ``sd3p5_medium.py`` with 8 billion parameters."""

from __future__ import annotations

from dataclasses import replace

from tuner.models.sd3p5_medium import BLUEPRINT as MEDIUM

BLUEPRINT = replace(
    MEDIUM,
    name="sd3.5-large",
    source="stabilityai/stable-diffusion-3.5-large",
    steps=28,  # with the guidance scale: the example on the model card
    guidance=3.5,
    transformer={  # transformer/config.json of stabilityai/stable-diffusion-3.5-large
        **MEDIUM.transformer,
        "num_layers": 38,
        "num_attention_heads": 38,
        "caption_projection_dim": 2432,
        "pos_embed_max_size": 192,
        "dual_attention_layers": (),
    },
)
