"""FLUX.1: diffusers' ``FluxPipeline`` as a `FlowModel`.

Latents are spatial outside and packed into 2x2 patches inside: (B, C, h, w) <-> (B, h/2 * w/2, 4C). Guidance is
distilled: its scale is an input of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.models._diffusers import PipelineBlueprint, PipelineModel, grid_ids, pack_2x2, unpack_2x2
from tuner.models.base import Conditioning, ReadConfig

if TYPE_CHECKING:
    import torch
    from PIL import Image

_PIPELINE_TEXT_TOKENS = 512  # FluxPipeline's default max_sequence_length
_PIPELINE_GUIDANCE = 3.5  # FluxPipeline's default guidance_scale
_PIPELINE_SAMPLE_SIZE = 128  # FluxPipeline.default_sample_size, in latent pixels


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
            latents = vae.encode(pixels_BCHW.to(vae.device, vae.dtype)).latent_dist.mode()
        encoded: torch.Tensor = (latents.float() - vae.config.shift_factor) * vae.config.scaling_factor
        return encoded


@dataclass(frozen=True, kw_only=True)
class FluxBlueprint(PipelineBlueprint):
    """A model of the FLUX.1 family, without its weights.

    The shift is exp(mu), with mu linear in the number of image tokens (`linear_mu`). FLUX.1-schnell has
    ``use_dynamic_shifting`` off and uses the constant ``shift``.
    """

    pipeline_class = "FluxPipeline"
    transformer_class = "FluxTransformer2DModel"
    model_class = FluxModel

    @property
    def channels(self) -> int:
        """A token holds the channels of 2 x 2 latent pixels."""
        return int(self.transformer["in_channels"]) // 4

    def forward(self, transformer: Any, x_BCHW: torch.Tensor, sigma: float, text: Conditioning) -> torch.Tensor:
        """Packs the latents and calls the transformer; see `PipelineBlueprint.forward`."""
        import torch

        batch, _, height, width = x_BCHW.shape
        device = x_BCHW.device
        packed = pack_2x2(x_BCHW).to(transformer.dtype)
        guidance = None
        if self.guidance is not None:
            guidance = torch.full((batch,), self.guidance, device=device, dtype=torch.float32)
        velocity = transformer(
            hidden_states=packed,
            timestep=torch.full((batch,), sigma, device=device, dtype=packed.dtype),
            guidance=guidance,
            pooled_projections=text["pooled"],
            encoder_hidden_states=text["tokens"],
            txt_ids=torch.zeros(text["tokens"].shape[1], 3, device=device, dtype=packed.dtype),
            img_ids=grid_ids(height // 2, width // 2, device).to(packed.dtype),
            return_dict=False,
        )[0]
        return unpack_2x2(velocity, height, width).float()

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        import torch

        return {
            "tokens": torch.empty(1, self.text_tokens, config.joint_attention_dim),
            "pooled": torch.empty(1, config.pooled_projection_dim),
        }

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """See `PipelineBlueprint.described`."""
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        longest_prompt = read("tokenizer_2/tokenizer_config.json").get("model_max_length", _PIPELINE_TEXT_TOKENS)
        return {
            "height": _PIPELINE_SAMPLE_SIZE * factor,
            "width": _PIPELINE_SAMPLE_SIZE * factor,
            "multiple": 2 * factor,
            "vae_factor": factor,
            "guidance": (self.guidance or _PIPELINE_GUIDANCE) if transformer.get("guidance_embeds") else None,
            "text_tokens": min(_PIPELINE_TEXT_TOKENS, longest_prompt),
        }


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
