"""Stable Diffusion 3.5: diffusers' ``StableDiffusion3Pipeline`` as a `FlowModel`.

Latents are spatial inside, too. Guidance is true: every velocity takes a second pass with the negative prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.models._diffusers import PipelineBlueprint, empty_text, square_sizes, vae_factor
from tuner.models._flow_match import flow_match_sigmas, linear_mu, own_lowest
from tuner.models._parts import CLIP_BIGG, CLIP_L_PROJECTED, T5_XXL, autoencoder_kl
from tuner.models._pipeline_model import PipelineModel
from tuner.models.base import Conditioning, ReadConfig, Size

if TYPE_CHECKING:
    import torch

_T5_TOKENS = 256  # StableDiffusion3Pipeline's default max_sequence_length
_CLIP_TOKENS = 77


class StableDiffusion3Model(PipelineModel):
    """A loaded Stable Diffusion 3 pipeline."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with two CLIP encoders and T5, one after the other; see `PipelineModel.encode_text`."""
        tokens_BTD, _, pooled_BD, _ = self.pipe.encode_prompt(
            prompt=prompts,
            prompt_2=None,
            prompt_3=None,
            do_classifier_free_guidance=False,
            max_sequence_length=self.blueprint.text_tokens - self.pipe.tokenizer_max_length,
        )
        return {"tokens": tokens_BTD, "pooled": pooled_BD}


@dataclass(frozen=True, kw_only=True)
class StableDiffusion3Blueprint(PipelineBlueprint):
    """A model of the Stable Diffusion 3 family, without its weights."""

    pipeline_class = "StableDiffusion3Pipeline"
    transformer_class = "SD3Transformer2DModel"
    model_class = StableDiffusion3Model
    text_encoders = (CLIP_L_PROJECTED, CLIP_BIGG, T5_XXL)
    autoencoder = autoencoder_kl(16)
    true_guidance = True

    def sigmas(self, steps: int, size: Size) -> tuple[float, ...]:
        """Returns the grid that the pipeline leaves to its scheduler; see `own_lowest`."""
        mu = linear_mu(self.scheduler, self.tokens(size), max_shift=1.16)
        return flow_match_sigmas(self.scheduler, steps, mu, own_lowest(self.scheduler))

    def fixed_text_tokens(self, pipe: Any) -> int:
        """CLIP's, which stand before T5's; see `PipelineBlueprint.fixed_text_tokens`."""
        return int(pipe.tokenizer_max_length)

    def forward(self, transformer: Any, x_BCHW: torch.Tensor, sigma: float, text: Conditioning) -> torch.Tensor:
        """Calls the transformer, whose timestep is 1000 sigma; see `PipelineBlueprint.forward`."""
        import torch

        velocity: torch.Tensor = transformer(
            hidden_states=x_BCHW.to(transformer.dtype),
            timestep=torch.full((x_BCHW.shape[0],), 1000 * sigma, device=x_BCHW.device, dtype=torch.float32),
            encoder_hidden_states=text["tokens"],
            pooled_projections=text["pooled"],
            return_dict=False,
        )[0]
        return velocity.float()

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        return empty_text(
            tokens=(self.text_tokens, config.joint_attention_dim), pooled=(config.pooled_projection_dim,)
        )

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """See `PipelineBlueprint.described`."""
        clip_tokens = read("tokenizer/tokenizer_config.json").get("model_max_length", _CLIP_TOKENS)
        side, patch = transformer.get("sample_size", 128), transformer.get("patch_size", 2)
        return {
            **square_sizes(vae_factor(vae), side, patch),
            "text_tokens": clip_tokens + _T5_TOKENS,
        }


BLUEPRINT = StableDiffusion3Blueprint(
    name="sd3.5-medium",
    source="stabilityai/stable-diffusion-3.5-medium",
    license="Stability AI Community License",
    height=1024,
    width=1024,
    multiple=16,
    vae_factor=8,
    steps=40,  # with the guidance scale: the example on the model card
    guidance=4.5,
    text_tokens=_CLIP_TOKENS + _T5_TOKENS,
    transformer={  # transformer/config.json of stabilityai/stable-diffusion-3.5-medium
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 24,
        "attention_head_dim": 64,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 384,
        "dual_attention_layers": (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
        "qk_norm": "rms_norm",
    },
    scheduler={  # scheduler/scheduler_config.json of stabilityai/stable-diffusion-3.5-medium
        "num_train_timesteps": 1000,
        "shift": 3.0,
    },
)
