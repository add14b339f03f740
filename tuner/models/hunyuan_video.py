"""HunyuanVideo: diffusers' ``HunyuanVideoPipeline`` as a `FlowModel`. Guidance is distilled into the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.models._diffusers import empty_text
from tuner.models._parts import CLIP_L, LLAMA_3_8B, autoencoder
from tuner.models._video import VideoBlueprint, VideoModel
from tuner.models.base import Conditioning, ReadConfig

if TYPE_CHECKING:
    import torch

_PIPELINE_TEXT_TOKENS = 256  # HunyuanVideoPipeline's default max_sequence_length


class HunyuanVideoModel(VideoModel):
    """A loaded HunyuanVideo pipeline."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with Llama (tokens, mask) and CLIP (pooled); see `PipelineModel.encode_text`."""
        tokens_BTD, pooled_BD, mask_BT = self.pipe.encode_prompt(
            prompts, max_sequence_length=self.blueprint.text_tokens
        )
        return {"tokens": tokens_BTD, "pooled": pooled_BD, "mask": mask_BT}


@dataclass(frozen=True, kw_only=True)
class HunyuanVideoBlueprint(VideoBlueprint):
    """A model of the HunyuanVideo family, without its weights."""

    pipeline_class = "HunyuanVideoPipeline"
    transformer_class = "HunyuanVideoTransformer3DModel"
    model_class = HunyuanVideoModel
    text_encoders = (LLAMA_3_8B, CLIP_L)
    autoencoder = autoencoder("AutoencoderKLHunyuanVideo")

    def forward(self, transformer: Any, x_BCFHW: torch.Tensor, sigma: float, text: Conditioning) -> torch.Tensor:
        """Calls the transformer with timestep and guidance times 1000; see `PipelineBlueprint.forward`."""
        import torch

        batch, device, dtype = x_BCFHW.shape[0], x_BCFHW.device, transformer.dtype
        guidance = None
        if self.guidance is not None:
            guidance = torch.full((batch,), self.guidance, device=device, dtype=dtype) * 1000
        velocity: torch.Tensor = transformer(
            hidden_states=x_BCFHW.to(dtype),
            timestep=torch.full((batch,), 1000 * sigma, device=device, dtype=dtype),
            encoder_hidden_states=text["tokens"].to(dtype),
            encoder_attention_mask=text["mask"].to(dtype),
            pooled_projections=text["pooled"].to(dtype),
            guidance=guidance,
            return_dict=False,
        )[0]
        return velocity.float()

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        return empty_text(
            tokens=(self.text_tokens, config.text_embed_dim),
            pooled=(config.pooled_projection_dim,),
            mask=(self.text_tokens,),
        )

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """See `PipelineBlueprint.described`."""
        factor = vae.get("spatial_compression_ratio", 8)
        return {
            "multiple": transformer.get("patch_size", 2) * factor,
            "vae_factor": factor,
            "frame_factor": vae.get("temporal_compression_ratio", 4),
            "guidance": self.guidance if transformer.get("guidance_embeds") else None,
        }


BLUEPRINT = HunyuanVideoBlueprint(
    name="hunyuan-video",
    source="hunyuanvideo-community/HunyuanVideo",
    license="Tencent Hunyuan Community License",
    height=720,
    width=1280,
    frames=129,
    fps=24,
    multiple=16,
    vae_factor=8,
    frame_factor=4,
    steps=50,
    guidance=6.0,
    text_tokens=_PIPELINE_TEXT_TOKENS,
    transformer={  # transformer/config.json of hunyuanvideo-community/HunyuanVideo
        "in_channels": 16,
        "out_channels": 16,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "num_layers": 20,
        "num_single_layers": 40,
        "num_refiner_layers": 2,
        "patch_size": 2,
        "patch_size_t": 1,
        "guidance_embeds": True,
        "text_embed_dim": 4096,
        "pooled_projection_dim": 768,
        "rope_theta": 256.0,
        "rope_axes_dim": (16, 56, 56),
    },
    scheduler={  # scheduler/scheduler_config.json of hunyuanvideo-community/HunyuanVideo
        "num_train_timesteps": 1000,
        "shift": 7.0,
    },
)
