"""ImageReward's network on transformers' BLIP classes.

Shapes: B pairs, P image patches plus one, L text tokens, V and T the widths of the image and text towers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

# The two constants of the published model that are in its code and not in its checkpoint: the mean and
# the standard deviation of the head's output over its training pairs.
REWARD_MEAN = 0.16717362830052426
REWARD_STD = 1.0333394966054072

# BLIP's image towers have heads of 64 channels at every size.
_VISION_HEAD_WIDTH = 64

_TEXT_KEYS = (
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "pad_token_id",
    "vocab_size",
)


@dataclass(frozen=True)
class RewardConfig:
    """Everything that sets the network's shape.

    Attributes:
        image_size: Pixels per side that the image tower reads.
        patch_size: Pixels per side of one patch.
        vision_width: Channels of the image tower, a multiple of 64 (the width of one head).
        vision_layers: Blocks of the image tower.
        vision_mlp_width: Hidden channels of its MLPs.
        text: The text tower, in the words of the published ``med_config.json``.
        head_widths: Output channels of the head's linear layers, the last of them 1.
    """

    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_mlp_width: int
    text: Mapping[str, Any]
    head_widths: tuple[int, ...]


class BlipReward(nn.Module):
    """Reads a prompt with cross-attention to an image and says how well a person would like the image.

    ImageReward, section 3 of arXiv 2304.05977: the state of the prompt's first token after the text tower
    goes through linear layers with no activation between them.
    """

    def __init__(self, config: RewardConfig) -> None:
        from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

        super().__init__()
        self.config = config
        self.vision: nn.Module = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=config.vision_width,
                intermediate_size=config.vision_mlp_width,
                num_hidden_layers=config.vision_layers,
                num_attention_heads=config.vision_width // _VISION_HEAD_WIDTH,
                image_size=config.image_size,
                patch_size=config.patch_size,
                layer_norm_eps=1e-6,
                initializer_range=0.02,
            )
        )
        self.text: nn.Module = BlipTextModel(
            BlipTextConfig(
                **{key: config.text[key] for key in _TEXT_KEYS if key in config.text},
                encoder_hidden_size=config.vision_width,
                # Builds the cross-attention; the causal mask comes only with is_decoder=True in forward.
                is_decoder=True,
                bos_token_id=None,  # read by generation only; the defaults assume the full vocabulary
                sep_token_id=None,
                # The layers add the mask to the logits, which is right only for the eager kind of mask.
                attn_implementation="eager",
            ),
            add_pooling_layer=False,
        )
        widths = (int(config.text["hidden_size"]), *config.head_widths)
        self.head = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))

    def cast_towers(self, dtype: str) -> BlipReward:
        """Lets the towers run in another dtype; the head stays in float32, or close rewards would tie."""
        self.vision.to(getattr(torch, dtype))
        self.text.to(getattr(torch, dtype))
        return self

    def forward(self, pixels: Tensor, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """Rewards each image for its prompt.

        Args:
            pixels: (B, 3, image_size, image_size), normalised as CLIP's images are.
            token_ids: (B, L) integers.
            token_mask: (B, L), 1 where there is a token and 0 where there is padding.

        Returns:
            (B,) rewards, 0 on average and with a standard deviation of 1 on the model's training pairs.
        """
        raw = self.raw_reward(self.encode_image(pixels), token_ids, token_mask)
        return (raw - REWARD_MEAN) / REWARD_STD

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Encodes (B, 3, image_size, image_size) pixels to (B, P, V) patches."""
        dtype = next(self.vision.parameters()).dtype
        return cast(Tensor, self.vision(pixel_values=pixels.to(dtype)).last_hidden_state)

    def raw_reward(self, patches: Tensor, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """Reads the prompts (B, L) against the patches (B, P, V): the head's output (B,), not normalised."""
        states = self.text(
            input_ids=token_ids, attention_mask=token_mask, encoder_hidden_states=patches
        ).last_hidden_state  # (B, L, T)
        with torch.autocast(states.device.type, enabled=False):  # half precision would tie close rewards
            return cast(Tensor, self.head(states[:, 0].float()).squeeze(-1))


def tokenize(tokenizer: Any, prompts: list[str], length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokenises prompts for the network.

    Returns:
        Token ids (B, length), their mask (B, length), and which prompts (B,) were cut to fit.
    """
    batch = tokenizer(prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    whole = tokenizer(prompts, padding=False, truncation=False)["input_ids"]
    cut = torch.tensor([len(ids) > length for ids in whole], dtype=torch.bool)
    return batch["input_ids"], batch["attention_mask"], cut
