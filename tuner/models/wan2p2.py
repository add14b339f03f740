"""Wan 2.2 A14B: two networks of 14B parameters, one for high and one for low noise levels."""

from dataclasses import replace

from tuner.models.wan2p1_14b import BLUEPRINT as ONE_NETWORK

BLUEPRINT = replace(
    ONE_NETWORK,
    name="wan2.2",
    source="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    height=720,
    width=1280,
    steps=40,  # with both guidance scales: the example on the model card
    guidance=4.0,
    low_guidance=3.0,
    index={"boundary_ratio": 0.875},
)
