"""Z-Image: diffusers' ``ZImagePipeline`` as a `FlowModel`.

Every image is a sequence of its own length, so prompts keep theirs. The network counts time from noise (0) to
image (1) and predicts the velocity that way round. Guidance is true and starts above 0: at scale g the guided
velocity is ``v + g (v - v_negative)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.models._diffusers import PipelineBlueprint, empty_text
from tuner.models._parts import QWEN_3_4B, autoencoder_kl
from tuner.models._pipeline_model import PipelineModel
from tuner.models.base import Conditioning

if TYPE_CHECKING:
    import torch

_PIPELINE_TEXT_TOKENS = 512  # ZImagePipeline's default max_sequence_length


class ZImageModel(PipelineModel):
    """A loaded Z-Image pipeline."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with Qwen3; ``lengths`` stays on the CPU. See `PipelineModel.encode_text`."""
        import torch

        rows, _ = self.pipe.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, max_sequence_length=self.blueprint.text_tokens
        )
        tokens_BTD = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return {"tokens": tokens_BTD, "lengths": torch.tensor([len(row) for row in rows])}

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Pads prompts and negative prompts to one length, so that both passes are one batch."""
        import torch

        text = dict(super().encode(prompts))
        longest = max(rows.shape[1] for name, rows in text.items() if name.endswith("tokens"))
        for name, rows in text.items():
            if name.endswith("tokens"):
                text[name] = torch.nn.functional.pad(rows, (0, 0, 0, longest - rows.shape[1]))
        return text

    def guided(self, towards_BCHW: torch.Tensor, away_BCHW: torch.Tensor, scale: float) -> torch.Tensor:
        """Counts the guidance scale from 0; see `PipelineModel.guided`."""
        return towards_BCHW + scale * (towards_BCHW - away_BCHW)


@dataclass(frozen=True, kw_only=True)
class ZImageBlueprint(PipelineBlueprint):
    """A model of the Z-Image family, without its weights."""

    pipeline_class = "ZImagePipeline"
    transformer_class = "ZImageTransformer2DModel"
    model_class = ZImageModel
    text_encoders = (QWEN_3_4B,)
    autoencoder = autoencoder_kl(16)
    draws_float32 = True
    true_guidance = True
    no_guidance = 0.0

    def forward(self, transformer: Any, x_BCHW: torch.Tensor, sigma: float, text: Conditioning) -> torch.Tensor:
        """Cuts every prompt to its length and calls the transformer; see `PipelineBlueprint.forward`."""
        import torch

        batch = x_BCHW.shape[0]
        tokens = list(text["tokens"])
        if "lengths" in text:
            tokens = [row[:length] for row, length in zip(tokens, text["lengths"].tolist(), strict=True)]
        images: list[torch.Tensor] = transformer(
            list(x_BCHW[:, :, None].to(transformer.dtype)),
            torch.full((batch,), 1 - sigma, device=x_BCHW.device, dtype=torch.float32),
            tokens,
            return_dict=False,
        )[0]
        return -torch.stack([image.float() for image in images])[:, :, 0]

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        return empty_text(tokens=(self.text_tokens, config.cap_feat_dim))


BLUEPRINT = ZImageBlueprint(
    name="z-image",
    source="Tongyi-MAI/Z-Image",
    license="Apache-2.0",
    height=1024,
    width=1024,
    multiple=16,
    vae_factor=8,
    steps=50,
    guidance=5.0,
    text_tokens=_PIPELINE_TEXT_TOKENS,
    transformer={  # transformer/config.json of Tongyi-MAI/Z-Image
        "all_patch_size": (2,),
        "all_f_patch_size": (1,),
        "in_channels": 16,
        "dim": 3840,
        "n_layers": 30,
        "n_refiner_layers": 2,
        "n_heads": 30,
        "n_kv_heads": 30,
        "cap_feat_dim": 2560,
        "rope_theta": 256.0,
        "axes_dims": (32, 48, 48),
    },
    scheduler={  # scheduler/scheduler_config.json of Tongyi-MAI/Z-Image
        "use_dynamic_shifting": False,
        "shift": 6.0,
    },
)
