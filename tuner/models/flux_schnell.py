"""FLUX.1 [schnell]: FLUX distilled to four steps, without guidance and with a constant shift of 1."""

from __future__ import annotations

from dataclasses import replace

from tuner.models.flux import BLUEPRINT as FLUX

BLUEPRINT = replace(
    FLUX,
    name="flux-schnell",
    source="black-forest-labs/FLUX.1-schnell",
    license="Apache-2.0",
    steps=4,  # with the text length: the example on the model card
    guidance=None,
    text_tokens=256,
    transformer={  # transformer/config.json of black-forest-labs/FLUX.1-schnell
        **FLUX.transformer,
        "guidance_embeds": False,
    },
    scheduler={  # scheduler/scheduler_config.json of black-forest-labs/FLUX.1-schnell
        **FLUX.scheduler,
        "use_dynamic_shifting": False,
        "shift": 1.0,
    },
)
