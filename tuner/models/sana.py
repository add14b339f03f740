"""Sana: diffusers' ``SanaPipeline`` as a `FlowModel`.

The stock scheduler is DPM-Solver++ on flow sigmas, a multistep rule, and so is the baseline. Sizes are taken as
they are asked for, without the pipeline's ``use_resolution_binning``. Guidance is true, both passes in one batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.models._diffusers import empty_text, square_sizes
from tuner.models._own_grid import OwnGridBlueprint
from tuner.models._parts import GEMMA_2_2B, autoencoder
from tuner.models._pipeline_model import PipelineModel
from tuner.models.base import Conditioning, ReadConfig

if TYPE_CHECKING:
    import torch

_PIPELINE_TEXT_TOKENS = 300  # SanaPipeline's default max_sequence_length


class SanaModel(PipelineModel):
    """A loaded Sana pipeline."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with Gemma 2, prompts behind the pipeline's default instruction, negative prompts bare."""
        default = inspect.signature(type(self.pipe).__call__).parameters["complex_human_instruction"].default
        tokens_BTD, mask_BT, *_ = self.pipe.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            max_sequence_length=self.blueprint.text_tokens,
            complex_human_instruction=None if negative else default,
        )
        return {"tokens": tokens_BTD, "mask": mask_BT}


@dataclass(frozen=True, kw_only=True)
class SanaBlueprint(OwnGridBlueprint):
    """A model of the Sana family, without its weights."""

    pipeline_class = "SanaPipeline"
    transformer_class = "SanaTransformer2DModel"
    model_class = SanaModel
    text_encoders = (GEMMA_2_2B,)
    autoencoder = autoencoder("AutoencoderDC")
    draws_float32 = True
    true_guidance = True

    def forward(self, transformer: Any, x_BCHW: torch.Tensor, sigma: float, text: Conditioning) -> torch.Tensor:
        """Calls the transformer, whose timestep is 1000 sigma; see `PipelineBlueprint.forward`."""
        import torch

        timestep = 1000 * sigma * transformer.config.timestep_scale
        velocity: torch.Tensor = transformer(
            x_BCHW.to(transformer.dtype),
            encoder_hidden_states=text["tokens"].to(transformer.dtype),
            encoder_attention_mask=text["mask"],
            timestep=torch.full((x_BCHW.shape[0],), timestep, device=x_BCHW.device, dtype=torch.float32),
            return_dict=False,
        )[0]
        return velocity.float()

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        return empty_text(tokens=(self.text_tokens, config.caption_channels), mask=(self.text_tokens,))

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """See `PipelineBlueprint.described`."""
        factor = 2 ** (len(vae["encoder_block_out_channels"]) - 1)
        return square_sizes(factor, transformer.get("sample_size", 32), transformer.get("patch_size", 1))


BLUEPRINT = SanaBlueprint(
    name="sana",
    source="Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",
    license="NVIDIA Open Model License; its text encoder has the Gemma licence",
    height=1024,
    width=1024,
    multiple=32,
    vae_factor=32,
    steps=20,
    guidance=4.5,
    text_tokens=_PIPELINE_TEXT_TOKENS,
    transformer={  # transformer/config.json of Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers
        "sample_size": 32,
        "patch_size": 1,
        "in_channels": 32,
        "out_channels": 32,
        "num_layers": 20,
        "attention_head_dim": 32,
        "num_attention_heads": 70,
        "cross_attention_head_dim": 112,
        "num_cross_attention_heads": 20,
        "cross_attention_dim": 2240,
        "caption_channels": 2304,
        "mlp_ratio": 2.5,
    },
    scheduler={  # scheduler/scheduler_config.json of Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers
        "_class_name": "DPMSolverMultistepScheduler",
        "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 3.0,
    },
)
