"""Z-Image-Turbo: Z-Image distilled to eight steps, without guidance and with a smaller shift."""

from __future__ import annotations

from dataclasses import replace

from tuner.models.z_image import BLUEPRINT as Z_IMAGE

BLUEPRINT = replace(
    Z_IMAGE,
    name="z-image-turbo",
    source="Tongyi-MAI/Z-Image-Turbo",
    steps=8,  # with the guidance scale: the example on the model card
    guidance=0.0,
    scheduler={  # scheduler/scheduler_config.json of Tongyi-MAI/Z-Image-Turbo
        **Z_IMAGE.scheduler,
        "shift": 3.0,
    },
)
