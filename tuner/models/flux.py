"""FLUX.1: diffusers' ``FluxPipeline`` as a `FlowModel`.

Guidance is distilled: its scale is an input of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.models._diffusers import PIPELINE_SAMPLE_SIZE, empty_text, square_sizes, vae_factor
from tuner.models._packed import PackedBlueprint, grid_ids
from tuner.models._parts import CLIP_L, T5_XXL, autoencoder_kl
from tuner.models._pipeline_model import PipelineModel
from tuner.models.base import Conditioning, ReadConfig

if TYPE_CHECKING:
    import torch
    from PIL import Image

_PIPELINE_TEXT_TOKENS = 512  # FluxPipeline's default max_sequence_length
_PIPELINE_GUIDANCE = 3.5  # FluxPipeline's default guidance_scale


class FluxModel(PipelineModel):
    """A loaded FLUX.1 pipeline."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with T5 (tokens) and CLIP (pooled); see `PipelineModel.encode_text`."""
        tokens_BTD, pooled_BD, _ = self.pipe.encode_prompt(
            prompt=prompts, prompt_2=None, max_sequence_length=self.blueprint.text_tokens
        )
        return {"tokens": tokens_BTD, "pooled": pooled_BD}

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Encodes to the mean of the VAE's latent distribution and scales; see `FlowModel.encode_images`."""
        import torch

        vae = self.pipe.vae
        pixels_BCHW = torch.cat([self.pipe.image_processor.preprocess(image) for image in images])
        with torch.no_grad():
            # Offloaded weights are elsewhere until they are used.
            found = vae.encode(pixels_BCHW.to(self.pipe._execution_device, vae.dtype))
        # A tiny autoencoder has no distribution, and no shift.
        latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        shift = vae.config.get("shift_factor") or 0.0
        encoded: torch.Tensor = (latents.float() - shift) * vae.config.scaling_factor
        return encoded


@dataclass(frozen=True, kw_only=True)
class FluxBlueprint(PackedBlueprint):
    """A model of the FLUX.1 family, without its weights.

    The shift is exp(mu), with mu linear in the number of image tokens (`linear_mu`). FLUX.1-schnell has
    ``use_dynamic_shifting`` off and uses the constant ``shift``.
    """

    pipeline_class = "FluxPipeline"
    transformer_class = "FluxTransformer2DModel"
    model_class = FluxModel
    text_encoders = (CLIP_L, T5_XXL)
    autoencoder = autoencoder_kl(16)

    def inputs(self, packed_BTD: torch.Tensor, grid: tuple[int, int], text: Conditioning) -> dict[str, Any]:
        """See `PackedBlueprint.inputs`."""
        import torch

        device, dtype = packed_BTD.device, packed_BTD.dtype
        guidance = None
        if self.guidance is not None and not self.true_guidance:
            guidance = torch.full((len(packed_BTD),), self.guidance, device=device, dtype=torch.float32)
        return {
            "guidance": guidance,
            "pooled_projections": text["pooled"],
            "encoder_hidden_states": text["tokens"],
            "txt_ids": torch.zeros(text["tokens"].shape[1], 3, device=device, dtype=dtype),
            "img_ids": grid_ids(grid, device).to(dtype),
        }

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        return empty_text(
            tokens=(self.text_tokens, config.joint_attention_dim), pooled=(config.pooled_projection_dim,)
        )

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """See `PipelineBlueprint.described`."""
        longest_prompt = read("tokenizer_2/tokenizer_config.json").get("model_max_length", _PIPELINE_TEXT_TOKENS)
        return {
            **square_sizes(vae_factor(vae), PIPELINE_SAMPLE_SIZE, 2),
            "guidance": (self.guidance or _PIPELINE_GUIDANCE) if transformer.get("guidance_embeds") else None,
            "text_tokens": min(_PIPELINE_TEXT_TOKENS, longest_prompt),
        }


@dataclass(frozen=True, kw_only=True)
class TwoPassFluxBlueprint(FluxBlueprint):
    """A model of the FLUX.1 family without embedded guidance; its scale is the pipeline's ``true_cfg_scale``."""

    true_guidance = True
    batched_guidance = False
    exported_as = "FluxPipeline in two passes"


BLUEPRINT = FluxBlueprint(
    name="flux",
    source="black-forest-labs/FLUX.1-dev",
    license="FLUX.1 [dev] Non-Commercial License",
    height=1024,
    width=1024,
    multiple=16,
    vae_factor=8,
    steps=50,
    guidance=_PIPELINE_GUIDANCE,
    text_tokens=_PIPELINE_TEXT_TOKENS,
    transformer={  # transformer/config.json of black-forest-labs/FLUX.1-dev
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": True,
        "axes_dims_rope": (16, 56, 56),
    },
    scheduler={  # scheduler/scheduler_config.json of black-forest-labs/FLUX.1-dev
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
    },
)
