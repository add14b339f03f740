"""Qwen-Image: diffusers' ``QwenImagePipeline`` as a `FlowModel`.

Guidance is true, one pass after the other, and the guided velocity is scaled back to the norm that the prompt's
own velocity has at each token. Prompts keep their own length; a batch is padded to its longest and masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.models._diffusers import PIPELINE_SAMPLE_SIZE, empty_text, square_sizes
from tuner.models._packed import PackedBlueprint, pack_2x2, unpack_2x2
from tuner.models._parts import QWEN_2P5_VL_7B, autoencoder
from tuner.models._pipeline_model import PipelineModel, unnormalized
from tuner.models.base import Conditioning, ReadConfig, Size

if TYPE_CHECKING:
    import torch

_PIPELINE_TEXT_TOKENS = 512  # QwenImagePipeline's default max_sequence_length


class QwenImageModel(PipelineModel):
    """A loaded Qwen-Image pipeline."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with Qwen2.5-VL; a mask comes along if lengths differ. See `PipelineModel.encode_text`."""
        tokens_BTD, mask_BT = self.pipe.encode_prompt(prompts, max_sequence_length=self.blueprint.text_tokens)
        return {"tokens": tokens_BTD} if mask_BT is None else {"tokens": tokens_BTD, "mask": mask_BT}

    def guided(self, towards_BCHW: torch.Tensor, away_BCHW: torch.Tensor, scale: float) -> torch.Tensor:
        """Guides, and keeps each token's norm, as the pipeline does; see `PipelineModel.guided`."""
        height, width = towards_BCHW.shape[-2:]
        towards = pack_2x2(towards_BCHW)
        guided = pack_2x2(super().guided(towards_BCHW, away_BCHW, scale))
        guided = guided * (towards.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
        return unpack_2x2(guided, height, width)

    def unscaled(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Undoes the normalisation per channel and adds the one frame of the video VAE."""
        return unnormalized(x_BCHW, self.pipe.vae.config)[:, :, None]

    def pixels(self, decoded: torch.Tensor) -> torch.Tensor:
        """Takes the one frame."""
        return decoded[:, :, 0]


@dataclass(frozen=True, kw_only=True)
class QwenImageBlueprint(PackedBlueprint):
    """A model of the Qwen-Image family, without its weights."""

    pipeline_class = "QwenImagePipeline"
    transformer_class = "QwenImageTransformer2DModel"
    model_class = QwenImageModel
    text_encoders = (QWEN_2P5_VL_7B,)
    autoencoder = autoencoder("AutoencoderKLQwenImage")
    batched_guidance = False
    true_guidance = True

    def decoded_shape(self, size: Size) -> tuple[int, ...]:
        """With the one frame of the video autoencoder; see `PipelineBlueprint.decoded_shape`."""
        channels, height, width = self.latent_shape(size)
        return channels, 1, height, width

    def inputs(self, packed_BTD: torch.Tensor, grid: tuple[int, int], text: Conditioning) -> dict[str, Any]:
        """See `PackedBlueprint.inputs`."""
        return {
            "encoder_hidden_states": text["tokens"],
            "encoder_hidden_states_mask": text.get("mask"),
            "img_shapes": [[(1, *grid)]] * len(packed_BTD),
        }

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        return empty_text(tokens=(self.text_tokens, config.joint_attention_dim))

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """See `PipelineBlueprint.described`."""
        return square_sizes(2 ** len(vae["temperal_downsample"]), PIPELINE_SAMPLE_SIZE, 2)


BLUEPRINT = QwenImageBlueprint(
    name="qwen-image",
    source="Qwen/Qwen-Image",
    license="Apache-2.0",
    height=1024,
    width=1024,
    multiple=16,
    vae_factor=8,
    steps=50,
    guidance=4.0,
    negative_prompt=" ",  # the pipeline guides only if there is one; a space is the model card's
    text_tokens=_PIPELINE_TEXT_TOKENS,
    transformer={  # transformer/config.json of Qwen/Qwen-Image
        "patch_size": 2,
        "in_channels": 64,
        "out_channels": 16,
        "num_layers": 60,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 3584,
        "guidance_embeds": False,
        "axes_dims_rope": (16, 56, 56),
    },
    scheduler={  # scheduler/scheduler_config.json of Qwen/Qwen-Image
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 0.9,
        "base_image_seq_len": 256,
        "max_image_seq_len": 8192,
        "shift_terminal": 0.02,
    },
)
