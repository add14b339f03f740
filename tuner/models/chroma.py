"""Chroma: diffusers' ``ChromaPipeline`` as a `FlowModel`.

FLUX's layout of latents without its embedded guidance: guidance is true, one pass after the other, and padding
tokens are masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.models._diffusers import empty_text
from tuner.models._packed import PackedBlueprint, grid_ids
from tuner.models._parts import T5_XXL, autoencoder_kl
from tuner.models._pipeline_model import PipelineModel
from tuner.models.base import Conditioning

if TYPE_CHECKING:
    import torch

_PIPELINE_TEXT_TOKENS = 512  # ChromaPipeline's default max_sequence_length


class ChromaModel(PipelineModel):
    """A loaded Chroma pipeline."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with T5, one padding token kept unmasked; see `PipelineModel.encode_text`."""
        tokens_BTD, _, mask_BT, *_ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.blueprint.text_tokens
        )
        return {"tokens": tokens_BTD, "mask": mask_BT}


@dataclass(frozen=True, kw_only=True)
class ChromaBlueprint(PackedBlueprint):
    """A model of the Chroma family, without its weights."""

    pipeline_class = "ChromaPipeline"
    transformer_class = "ChromaTransformer2DModel"
    model_class = ChromaModel
    text_encoders = (T5_XXL,)
    autoencoder = autoencoder_kl(16)
    batched_guidance = False
    true_guidance = True

    def inputs(self, packed_BTD: torch.Tensor, grid: tuple[int, int], text: Conditioning) -> dict[str, Any]:
        """See `PackedBlueprint.inputs`."""
        import torch

        device, dtype = packed_BTD.device, packed_BTD.dtype
        image_mask_BT = torch.ones(packed_BTD.shape[:2], device=device, dtype=text["mask"].dtype)
        return {
            "encoder_hidden_states": text["tokens"],
            "txt_ids": torch.zeros(text["tokens"].shape[1], 3, device=device, dtype=dtype),
            "img_ids": grid_ids(grid, device).to(dtype),
            "attention_mask": torch.cat([text["mask"], image_mask_BT], dim=1),
        }

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        return empty_text(tokens=(self.text_tokens, config.joint_attention_dim), mask=(self.text_tokens,))


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
