"""Stable Diffusion XL: diffusers' ``StableDiffusionXLPipeline`` as a `FlowModel`.

The network is a UNet that predicts noise; `_variance_preserving` says how that becomes a velocity. The stock
scheduler is ``EulerDiscreteScheduler`` with ``leading`` spacing, and the baseline equals it. The network is told
the size of the image (arXiv 2307.01952, section 2.2): at every stage that stage's own, uncropped, as the pipeline
would if it were called at that size. Guidance is true, both passes in one batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.errors import UserError
from tuner.models._diffusers import empty_text, square_sizes, vae_factor
from tuner.models._parts import CLIP_BIGG, CLIP_L, autoencoder_kl
from tuner.models._pipeline_model import PipelineModel
from tuner.models._variance_preserving import VariancePreservingBlueprint
from tuner.models.base import Conditioning, Item, ReadConfig

if TYPE_CHECKING:
    import torch

_TEXT_TOKENS = 77  # what both CLIP tokenizers pad to


class SdxlModel(PipelineModel):
    """A loaded Stable Diffusion XL pipeline."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with both CLIPs; see `PipelineModel.encode_text`.

        An empty negative prompt is the pipeline's None: zeros, where ``force_zeros_for_empty_prompt`` is on.
        """
        import torch

        tokens_BTD, _, pooled_BD, _ = self.pipe.encode_prompt(prompts, do_classifier_free_guidance=False)
        if negative and not any(prompts) and self.pipe.config.force_zeros_for_empty_prompt:
            tokens_BTD, pooled_BD = torch.zeros_like(tokens_BTD), torch.zeros_like(pooled_BD)
        return {"tokens": tokens_BTD, "pooled": pooled_BD}

    def decode(self, x_BCHW: torch.Tensor) -> Sequence[Item]:
        """Undoes the VAE's scaling and decodes, as the pipeline does; see `FlowModel.decode`."""
        with self._upcast():
            return super().decode(x_BCHW)

    @contextlib.contextmanager
    def _upcast(self) -> Iterator[None]:
        """Runs the VAE in float32 where float16 would overflow, as the pipeline does."""
        import torch

        vae = self.pipe.vae
        if not (vae.dtype == torch.float16 and vae.config.force_upcast):
            yield
            return
        vae.to(torch.float32)
        try:
            yield
        finally:
            vae.to(torch.float16)


@dataclass(frozen=True, kw_only=True)
class SdxlBlueprint(VariancePreservingBlueprint):
    """A model of the Stable Diffusion XL family, without its weights."""

    pipeline_class = "StableDiffusionXLPipeline"
    denoiser = "unet"
    transformer_class = "UNet2DConditionModel"
    model_class = SdxlModel
    text_encoders = (CLIP_L, CLIP_BIGG)
    autoencoder = autoencoder_kl(4)
    true_guidance = True

    def predict(self, network: Any, z_BCHW: torch.Tensor, timestep: float, text: Conditioning) -> torch.Tensor:
        """Calls the UNet, with the size of the latents as that of the image; see the base class."""
        import torch

        batch, _, height, width = z_BCHW.shape
        size = [height * self.vae_factor, width * self.vae_factor]
        size_B6 = torch.tensor([[*size, 0, 0, *size]] * batch, device=z_BCHW.device, dtype=text["tokens"].dtype)
        predicted_BCHW: torch.Tensor = network(
            z_BCHW,
            torch.full((batch,), timestep, device=z_BCHW.device, dtype=torch.float32),
            encoder_hidden_states=text["tokens"],
            added_cond_kwargs={"text_embeds": text["pooled"], "time_ids": size_B6},
            return_dict=False,
        )[0]
        return predicted_BCHW

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        return empty_text(tokens=(self.text_tokens, config.cross_attention_dim), pooled=(pooled,))

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """See `PipelineBlueprint.described`."""
        if transformer.get("time_cond_proj_dim") is not None:
            raise UserError(
                "A UNet that takes the guidance scale as an input is not supported; use the base model."
            )
        return square_sizes(vae_factor(vae), transformer.get("sample_size", 128), 1)


BLUEPRINT = SdxlBlueprint(
    name="sdxl",
    source="stabilityai/stable-diffusion-xl-base-1.0",
    license="CreativeML Open RAIL++-M License",
    height=1024,
    width=1024,
    multiple=8,
    vae_factor=8,
    steps=50,
    guidance=5.0,
    text_tokens=_TEXT_TOKENS,
    transformer={  # unet/config.json of stabilityai/stable-diffusion-xl-base-1.0
        "sample_size": 128,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 2,
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    scheduler={  # scheduler/scheduler_config.json of stabilityai/stable-diffusion-xl-base-1.0
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "prediction_type": "epsilon",
    },
)
