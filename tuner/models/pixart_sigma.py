"""PixArt-Sigma: diffusers' ``PixArtSigmaPipeline`` as a `FlowModel`.

The network predicts noise; `_variance_preserving` says how that becomes a velocity. The stock scheduler is
DPM-Solver++, a multistep rule, and so is the baseline. Sizes are taken as they are asked for, without the
pipeline's ``use_resolution_binning``. Guidance is true, both passes in one batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.models._diffusers import empty_text, square_sizes, vae_factor
from tuner.models._parts import T5_XXL, autoencoder_kl
from tuner.models._pipeline_model import PipelineModel
from tuner.models._variance_preserving import VariancePreservingBlueprint
from tuner.models.base import Conditioning, ReadConfig

if TYPE_CHECKING:
    import torch

_PIPELINE_TEXT_TOKENS = 300  # PixArtSigmaPipeline's default max_sequence_length


class PixArtSigmaModel(PipelineModel):
    """A loaded PixArt-Sigma pipeline."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with T5, the pipeline's cleaning of captions included; see `PipelineModel.encode_text`."""
        tokens_BTD, mask_BT, *_ = self.pipe.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            clean_caption=True,
            max_sequence_length=self.blueprint.text_tokens,
        )
        return {"tokens": tokens_BTD, "mask": mask_BT}


@dataclass(frozen=True, kw_only=True)
class PixArtSigmaBlueprint(VariancePreservingBlueprint):
    """A model of the PixArt-Sigma family, without its weights."""

    pipeline_class = "PixArtSigmaPipeline"
    transformer_class = "PixArtTransformer2DModel"
    model_class = PixArtSigmaModel
    text_encoders = (T5_XXL,)
    autoencoder = autoencoder_kl(4)
    true_guidance = True

    def predict(self, network: Any, z_BCHW: torch.Tensor, timestep: float, text: Conditioning) -> torch.Tensor:
        """Calls the transformer, whose other output channels are a variance; see the base class."""
        import torch

        batch, channels = z_BCHW.shape[:2]
        predicted_BCHW: torch.Tensor = network(
            z_BCHW,
            encoder_hidden_states=text["tokens"],
            encoder_attention_mask=text["mask"],
            timestep=torch.full((batch,), timestep, device=z_BCHW.device, dtype=torch.float32),
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        return predicted_BCHW[:, :channels]

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        return empty_text(tokens=(self.text_tokens, config.caption_channels), mask=(self.text_tokens,))

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """See `PipelineBlueprint.described`."""
        return square_sizes(vae_factor(vae), transformer.get("sample_size", 128), transformer.get("patch_size", 2))


BLUEPRINT = PixArtSigmaBlueprint(
    name="pixart-sigma",
    source="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    license="CreativeML Open RAIL++-M License",
    height=1024,
    width=1024,
    multiple=16,
    vae_factor=8,
    steps=20,
    guidance=4.5,
    text_tokens=_PIPELINE_TEXT_TOKENS,
    transformer={  # transformer/config.json of PixArt-alpha/PixArt-Sigma-XL-2-1024-MS
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 28,
        "attention_head_dim": 72,
        "num_attention_heads": 16,
        "cross_attention_dim": 1152,
        "caption_channels": 4096,
        "interpolation_scale": 2,
        "use_additional_conditions": False,
    },
    scheduler={  # scheduler/scheduler_config.json of PixArt-alpha/PixArt-Sigma-XL-2-1024-MS
        "_class_name": "DPMSolverMultistepScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "timestep_spacing": "linspace",
        "prediction_type": "epsilon",
    },
)
