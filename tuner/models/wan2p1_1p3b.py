"""Wan 2.1 and 2.2, text to video: diffusers' ``WanPipeline`` as a `FlowModel`.

Guidance is true: every velocity takes a second pass, after the first. The stock scheduler is UniPC, a multistep
rule, and so is the baseline. Wan 2.2 has two networks: one above a noise level, the boundary, and one below it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from tuner.errors import UserError
from tuner.feature_cache import FeatureCache
from tuner.models._diffusers import empty_text
from tuner.models._own_grid import OwnGridBlueprint
from tuner.models._parts import UMT5_XXL, autoencoder
from tuner.models._pipeline_model import unnormalized
from tuner.models._video import VideoBlueprint, VideoModel
from tuner.models.base import Conditioning, ReadConfig
from tuner.schedule import Stage

if TYPE_CHECKING:
    import torch

_PIPELINE_TEXT_TOKENS = 512  # WanPipeline's default max_sequence_length


class WanModel(VideoModel):
    """A loaded Wan pipeline."""

    blueprint: WanBlueprint

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with UMT5, padded with zeros; see `PipelineModel.encode_text`."""
        tokens_BTD, _ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.blueprint.text_tokens
        )
        return {"tokens": tokens_BTD}

    def network(self, sigma: float) -> Any:
        """Returns the network of this noise level; Wan 2.1 has one."""
        return self.pipe.transformer_2 if self.blueprint.second(sigma) else self.pipe.transformer

    def unscaled(self, x_BCFHW: torch.Tensor) -> torch.Tensor:
        """Undoes the normalisation of every channel; see `PipelineModel.unscaled`."""
        return unnormalized(x_BCFHW, self.pipe.vae.config)


@dataclass(frozen=True, kw_only=True)
class WanBlueprint(OwnGridBlueprint, VideoBlueprint):
    """A model of the Wan family, without its weights.

    Attributes:
        low_guidance: Guidance scale of a second network; None for that of the first.
    """

    pipeline_class = "WanPipeline"
    transformer_class = "WanTransformer3DModel"
    model_class = WanModel
    text_encoders = (UMT5_XXL,)
    autoencoder = autoencoder("AutoencoderKLWan")
    batched_guidance = False
    true_guidance = True

    low_guidance: float | None = None

    @property
    def boundary(self) -> float:
        """Noise level below which the second network is called; 0 where there is one network."""
        return float(self.index.get("boundary_ratio") or 0)

    def second(self, sigma: float) -> bool:
        """Tells whether the second network is called; the pipeline tells by the timestep that it shows."""
        return self.asked(sigma) < self.boundary

    def called(self, stage: Stage, sigma: float) -> Self:
        """Gives both networks the scale that a stage names; see `PipelineBlueprint.called`."""
        found = super().called(stage, sigma)
        return found if stage.guidance is None else replace(found, low_guidance=None)

    def scale(self, sigma: float) -> float:
        """Returns the guidance scale of the network that is called at a noise level."""
        if self.second(sigma) and self.low_guidance is not None:
            return self.low_guidance
        return super().scale(sigma)

    def meta_networks(self) -> list[Any]:
        """Builds one network, or two of the same configuration; see `Blueprint.meta_networks`."""
        return super().meta_networks() * (2 if self.boundary else 1)

    def check_cache(self, cache: FeatureCache) -> None:
        """Refuses caches for two networks, each of which would see a part of a stage; see `PipelineBlueprint`."""
        if self.boundary:
            raise UserError(
                f"Cache {cache.kind!r} does not work with the two networks of {self.name}; leave it out."
            )
        super().check_cache(cache)

    def forward(self, transformer: Any, x_BCFHW: torch.Tensor, sigma: float, text: Conditioning) -> torch.Tensor:
        """Calls the transformer, whose timestep is 1000 sigma; see `PipelineBlueprint.forward`."""
        import torch

        velocity: torch.Tensor = transformer(
            hidden_states=x_BCFHW.to(transformer.dtype),
            timestep=torch.full((x_BCFHW.shape[0],), 1000 * sigma, device=x_BCFHW.device, dtype=torch.float32),
            encoder_hidden_states=text["tokens"].to(transformer.dtype),
            return_dict=False,
        )[0]
        return velocity.float()

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        return empty_text(tokens=(self.text_tokens, config.text_dim))

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """See `PipelineBlueprint.described`."""
        index = read("model_index.json")
        if index.get("expand_timesteps"):
            raise UserError(
                "Wan pipelines with `expand_timesteps` (Wan 2.2 TI2V-5B) are not supported; use Wan 2.1 or the "
                "A14B model of Wan 2.2."
            )
        factor = vae.get("scale_factor_spatial", 8)
        longest_prompt = read("tokenizer/tokenizer_config.json").get("model_max_length", _PIPELINE_TEXT_TOKENS)
        return {
            "multiple": transformer.get("patch_size", (1, 2, 2))[1] * factor,
            "vae_factor": factor,
            "frame_factor": vae.get("scale_factor_temporal", 4),
            "text_tokens": min(_PIPELINE_TEXT_TOKENS, longest_prompt),
            "index": {"boundary_ratio": index.get("boundary_ratio")},
        }


BLUEPRINT = WanBlueprint(
    name="wan2.1-1.3b",
    source="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    license="Apache-2.0",
    height=480,
    width=832,
    frames=81,
    fps=16,
    multiple=16,
    vae_factor=8,
    frame_factor=4,
    steps=50,
    guidance=5.0,
    text_tokens=_PIPELINE_TEXT_TOKENS,
    transformer={  # transformer/config.json of Wan-AI/Wan2.1-T2V-1.3B-Diffusers
        "patch_size": (1, 2, 2),
        "num_attention_heads": 12,
        "attention_head_dim": 128,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": 4096,
        "freq_dim": 256,
        "ffn_dim": 8960,
        "num_layers": 30,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 1024,
    },
    index={"boundary_ratio": None},
    scheduler={  # the part of scheduler/scheduler_config.json that gives the levels
        "_class_name": "UniPCMultistepScheduler",
        "num_train_timesteps": 1000,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 3.0,
    },
)
