"""FLUX.2: diffusers' ``Flux2Pipeline`` as a `FlowModel`.

The pipeline's latents are 2x2 patches of VAE latents, (B, 4C, h/2, w/2). Outside they are unpacked to
(B, C, h, w), so that a stage resizes neighbouring pixels and not the four phases of a patch. Guidance is
distilled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.models._diffusers import empty_text
from tuner.models._packed import PackedBlueprint, grid_ids, pack_2x2, unpack_2x2
from tuner.models._parts import MISTRAL_3_24B, autoencoder
from tuner.models._pipeline_model import PipelineModel
from tuner.models.base import Conditioning, Size

if TYPE_CHECKING:
    import torch

_PIPELINE_TEXT_TOKENS = 512  # Flux2Pipeline's default max_sequence_length
_LONG = 4300  # tokens


class Flux2Model(PipelineModel):
    """A loaded FLUX.2 pipeline."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with Mistral 3, three of its layers side by side; see `PipelineModel.encode_text`."""
        tokens_BTD, _ = self.pipe.encode_prompt(prompts, max_sequence_length=self.blueprint.text_tokens)
        return {"tokens": tokens_BTD}

    def draw(self, size: Size, generator: torch.Generator) -> torch.Tensor:
        """Draws patches, as the pipeline does; see `PipelineModel.draw`."""
        import torch

        channels, height, width = self.blueprint.latent_shape(size)
        shape = (1, 4 * channels, height // 2, width // 2)
        patches = torch.randn(shape, generator=generator, dtype=self.pipe.transformer.dtype)
        return unpack_2x2(patches.flatten(2).mT, height, width)

    def unscaled(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Undoes the batch normalisation of the patches' channels."""
        vae, (height, width) = self.pipe.vae, x_BCHW.shape[-2:]
        std = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt().to(x_BCHW)
        return unpack_2x2(pack_2x2(x_BCHW) * std + vae.bn.running_mean.to(x_BCHW), height, width)


@dataclass(frozen=True, kw_only=True)
class Flux2Blueprint(PackedBlueprint):
    """A model of the FLUX.2 family, without its weights."""

    pipeline_class = "Flux2Pipeline"
    transformer_class = "Flux2Transformer2DModel"
    model_class = Flux2Model
    text_encoders = (MISTRAL_3_24B,)
    autoencoder = autoencoder("AutoencoderKLFlux2")

    def mu(self, steps: int, size: Size) -> float:
        """Returns the pipeline's ``compute_empirical_mu``: linear in tokens, and below 4300 in steps, too."""
        tokens = self.tokens(size)
        many_steps = 0.00016927 * tokens + 0.45666666
        if tokens > _LONG:
            return many_steps
        few_steps = 8.73809524e-05 * tokens + 1.89833333
        return many_steps + (many_steps - few_steps) / 190 * (steps - 200)

    def inputs(self, packed_BTD: torch.Tensor, grid: tuple[int, int], text: Conditioning) -> dict[str, Any]:
        """See `PackedBlueprint.inputs`."""
        import torch

        device = packed_BTD.device
        text_ids = torch.zeros(text["tokens"].shape[1], 4, device=device, dtype=torch.long)
        text_ids[:, 3] = torch.arange(len(text_ids), device=device)
        return {
            "guidance": torch.full((len(packed_BTD),), self.guidance or 0.0, device=device, dtype=torch.float32),
            "encoder_hidden_states": text["tokens"],
            "txt_ids": text_ids,
            "img_ids": torch.nn.functional.pad(grid_ids(grid, device), (0, 1)),
        }

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        return empty_text(tokens=(self.text_tokens, config.joint_attention_dim))


BLUEPRINT = Flux2Blueprint(
    name="flux2",
    source="black-forest-labs/FLUX.2-dev",
    license="FLUX Non-Commercial License",
    height=1024,
    width=1024,
    multiple=16,
    vae_factor=8,
    steps=50,
    guidance=4.0,
    text_tokens=_PIPELINE_TEXT_TOKENS,
    transformer={  # transformer/config.json of black-forest-labs/FLUX.2-dev
        "patch_size": 1,
        "in_channels": 128,
        "num_layers": 8,
        "num_single_layers": 48,
        "attention_head_dim": 128,
        "num_attention_heads": 48,
        "joint_attention_dim": 15360,
        "timestep_guidance_channels": 256,
        "mlp_ratio": 3.0,
        "axes_dims_rope": (32, 32, 32, 32),
        "rope_theta": 2000,
    },
    scheduler={  # scheduler/scheduler_config.json of black-forest-labs/FLUX.2-dev
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
    },
)
