"""Chroma: diffusers' ``ChromaPipeline`` as a `FlowModel`.

FLUX's layout of latents without its embedded guidance: guidance is true, one pass after the other, and padding
tokens are masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.models._diffusers import PipelineBlueprint, PipelineModel, grid_ids, pack_2x2, unpack_2x2
from tuner.models.base import Conditioning, ReadConfig

if TYPE_CHECKING:
    import torch

_PIPELINE_TEXT_TOKENS = 512  # ChromaPipeline's default max_sequence_length
_PIPELINE_SAMPLE_SIZE = 128  # ChromaPipeline.default_sample_size, in latent pixels


class ChromaModel(PipelineModel):
    """A loaded Chroma pipeline."""

    batched_guidance = False

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with T5, one padding token kept unmasked; see `PipelineModel.encode_text`."""
        tokens_BTD, _, mask_BT, *_ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.blueprint.text_tokens
        )
        return {"tokens": tokens_BTD, "mask": mask_BT}


@dataclass(frozen=True, kw_only=True)
class ChromaBlueprint(PipelineBlueprint):
    """A model of the Chroma family, without its weights."""

    pipeline_class = "ChromaPipeline"
    transformer_class = "ChromaTransformer2DModel"
    model_class = ChromaModel
    true_guidance = True

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
        image_mask = torch.ones(packed.shape[:2], device=device, dtype=text["mask"].dtype)
        velocity = transformer(
            hidden_states=packed,
            timestep=torch.full((batch,), sigma, device=device, dtype=packed.dtype),
            encoder_hidden_states=text["tokens"],
            txt_ids=torch.zeros(text["tokens"].shape[1], 3, device=device, dtype=packed.dtype),
            img_ids=grid_ids(height // 2, width // 2, device).to(packed.dtype),
            attention_mask=torch.cat([text["mask"], image_mask], dim=1),
            return_dict=False,
        )[0]
        return unpack_2x2(velocity, height, width).float()

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        import torch

        return {
            "tokens": torch.empty(1, self.text_tokens, config.joint_attention_dim),
            "mask": torch.empty(1, self.text_tokens),
        }

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """See `PipelineBlueprint.described`."""
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        side = _PIPELINE_SAMPLE_SIZE * factor
        return {"height": side, "width": side, "multiple": 2 * factor, "vae_factor": factor}


BLUEPRINT = ChromaBlueprint(
    name="chroma",
    source="lodestones/Chroma1-HD",
    license="Apache-2.0",
    height=1024,
    width=1024,
    multiple=16,
    vae_factor=8,
    steps=35,
    guidance=5.0,
    text_tokens=_PIPELINE_TEXT_TOKENS,
    transformer={  # transformer/config.json of lodestones/Chroma1-HD
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "axes_dims_rope": (16, 56, 56),
        "approximator_num_channels": 64,
        "approximator_hidden_dim": 5120,
        "approximator_layers": 5,
    },
    scheduler={  # scheduler/scheduler_config.json of lodestones/Chroma1-HD
        "use_dynamic_shifting": False,
        "shift": 1.0,
        "use_beta_sigmas": True,
    },
)
