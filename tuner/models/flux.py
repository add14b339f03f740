"""FLUX.1: diffusers' ``FluxPipeline`` as a `FlowModel`.

Latents are spatial outside and packed into 2x2 patches inside: (B, C, h, w) <-> (B, h/2 * w/2, 4C).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tuner.errors import UserError
from tuner.models.base import Blueprint, Conditioning, FlowModel, ReadConfig, Size
from tuner.sigmas import shift_sigma

if TYPE_CHECKING:
    import torch
    from PIL import Image

_PIPELINE_TEXT_TOKENS = 512  # FluxPipeline's default max_sequence_length
_PIPELINE_SAMPLE_SIZE = 128  # FluxPipeline.default_sample_size, in latent pixels


@dataclass(frozen=True, kw_only=True)
class FluxBlueprint(Blueprint):
    """A model of the FLUX.1 family, without its weights."""

    pipeline_class = "FluxPipeline"

    def sigmas(self, steps: int, size: Size) -> tuple[float, ...]:
        """Returns N uniform levels from 1 to 1/N, shifted by the image's token count, and 0.

        mu grows linearly with the number of packed tokens, from ``base_shift`` to ``max_shift``, and the shift
        is exp(mu): diffusers' ``calculate_shift`` and its exponential time shift. FLUX.1-schnell has
        ``use_dynamic_shifting`` off and uses the constant ``shift``.
        """
        config = self.scheduler
        if config.get("use_dynamic_shifting", False):
            tokens = size[0] * size[1] / self.multiple**2
            low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
            base, top = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
            shift = math.exp(base + (top - base) * (tokens - low) / (high - low))
        else:
            shift = config.get("shift", 1.0)
        return (*(shift_sigma(1 - k / steps, shift) for k in range(steps)), 0.0)

    def meta_forward(self, size: Size) -> None:
        """Builds the transformer from its configuration on the meta device and calls it once."""
        import torch
        from diffusers import FluxTransformer2DModel

        config = {key: value for key, value in self.transformer.items() if not key.startswith("_")}
        tokens = size[0] * size[1] // self.multiple**2
        with torch.device("meta"), torch.no_grad():
            transformer = FluxTransformer2DModel(**config)
            transformer(
                hidden_states=torch.empty(1, tokens, transformer.config.in_channels),
                encoder_hidden_states=torch.empty(1, self.text_tokens, transformer.config.joint_attention_dim),
                pooled_projections=torch.empty(1, transformer.config.pooled_projection_dim),
                timestep=torch.empty(1),
                guidance=torch.empty(1) if transformer.config.guidance_embeds else None,
                img_ids=torch.empty(tokens, 3),
                txt_ids=torch.empty(self.text_tokens, 3),
            )

    def reconfigured(self, source: str, read: ReadConfig) -> FluxBlueprint:
        """Reads sizes, guidance, text length and sigma grid from a saved or loaded pipeline's configuration."""
        transformer, vae = read("transformer/config.json"), read("vae/config.json")
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        longest_prompt = read("tokenizer_2/tokenizer_config.json").get("model_max_length", _PIPELINE_TEXT_TOKENS)
        return replace(
            self,
            name=source,
            source=source,
            license="see the model's own card",
            height=_PIPELINE_SAMPLE_SIZE * factor,
            width=_PIPELINE_SAMPLE_SIZE * factor,
            multiple=2 * factor,
            guidance=self.guidance if transformer.get("guidance_embeds") else None,
            text_tokens=min(_PIPELINE_TEXT_TOKENS, longest_prompt),
            transformer=transformer,
            scheduler=read("scheduler/scheduler_config.json"),
        )

    def wrap(self, pipe: Any) -> FluxModel:
        """Wraps a ``FluxPipeline``; the pipeline itself is not changed."""
        return FluxModel(pipe, self)

    def load(self, device: str | None = None, dtype: str | None = None) -> FluxModel:
        """Loads the pipeline from a hub id or folder; see `Blueprint.load`."""
        import torch
        from diffusers import FluxPipeline

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or ("float32" if device == "cpu" else "bfloat16")
        try:
            pipe = FluxPipeline.from_pretrained(self.source, dtype=getattr(torch, dtype))
        except OSError as error:
            raise UserError(
                f"Model {self.name!r} could not be loaded from {self.source!r}: it is neither a local pipeline "
                "folder nor reachable on the hub; check the network and the licence (`hf auth login`), or give "
                "a local folder."
            ) from error
        pipe.set_progress_bar_config(disable=True)
        return self.wrap(pipe.to(device))


class FluxModel(FlowModel):
    """A loaded FLUX.1 pipeline."""

    def __init__(self, pipe: Any, blueprint: FluxBlueprint):
        self.pipe = pipe
        self.blueprint = blueprint

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Encodes with both text encoders of the pipeline; see `FlowModel.encode`."""
        import torch

        with torch.no_grad():
            tokens_BTD, pooled_BD, _ = self.pipe.encode_prompt(
                prompt=list(prompts), prompt_2=None, max_sequence_length=self.blueprint.text_tokens
            )
        return {"tokens": tokens_BTD, "pooled": pooled_BD}

    def noise(self, size: Size, seeds: Sequence[int]) -> torch.Tensor:
        """Draws on the CPU, so that an image's noise is the same on every device; see `FlowModel.noise`."""
        import torch

        transformer = self.pipe.transformer
        height, width = (2 * side // self.blueprint.multiple for side in size)
        shape = (1, transformer.config.in_channels // 4, height, width)
        rows = [
            torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=transformer.dtype)
            for seed in seeds
        ]
        return torch.cat(rows).to(transformer.device, torch.float32)

    def velocity(self, x_BCHW: torch.Tensor, sigma: float, conditioning: Conditioning) -> torch.Tensor:
        """Packs the latents and calls the transformer once; see `FlowModel.velocity`."""
        import torch

        transformer = self.pipe.transformer
        batch, channels, height, width = x_BCHW.shape
        device, dtype = x_BCHW.device, transformer.dtype
        packed = self.pipe._pack_latents(x_BCHW, batch, channels, height, width).to(dtype)
        image_ids = self.pipe._prepare_latent_image_ids(batch, height // 2, width // 2, device, dtype)
        text_ids = torch.zeros(conditioning["tokens"].shape[1], 3, device=device, dtype=dtype)
        guidance = None
        if self.blueprint.guidance is not None:
            guidance = torch.full((batch,), self.blueprint.guidance, device=device, dtype=torch.float32)
        velocity = transformer(
            hidden_states=packed,
            timestep=torch.full((batch,), sigma, device=device, dtype=dtype),
            guidance=guidance,
            pooled_projections=conditioning["pooled"],
            encoder_hidden_states=conditioning["tokens"],
            txt_ids=text_ids,
            img_ids=image_ids,
            return_dict=False,
        )[0]
        return self._unpacked(velocity, height, width).float()

    def decode(self, x_BCHW: torch.Tensor) -> list[Image.Image]:
        """Undoes the VAE's scaling and decodes, as the pipeline does; see `FlowModel.decode`."""
        import torch

        vae = self.pipe.vae
        latents = (x_BCHW / vae.config.scaling_factor + vae.config.shift_factor).to(vae.dtype)
        with torch.no_grad():
            pixels = vae.decode(latents, return_dict=False)[0]
        images: list[Image.Image] = self.pipe.image_processor.postprocess(pixels, output_type="pil")
        return images

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Encodes to the mean of the VAE's latent distribution and scales; see `FlowModel.encode_images`."""
        import torch

        vae = self.pipe.vae
        pixels_BCHW = torch.cat([self.pipe.image_processor.preprocess(image) for image in images])
        with torch.no_grad():
            latents = vae.encode(pixels_BCHW.to(vae.device, vae.dtype)).latent_dist.mode()
        encoded: torch.Tensor = (latents.float() - vae.config.shift_factor) * vae.config.scaling_factor
        return encoded

    def _unpacked(self, packed: torch.Tensor, height: int, width: int) -> torch.Tensor:
        factor = self.pipe.vae_scale_factor
        unpacked: torch.Tensor = self.pipe._unpack_latents(packed, height * factor, width * factor, factor)
        return unpacked


BLUEPRINT = FluxBlueprint(
    name="flux",
    source="black-forest-labs/FLUX.1-dev",
    license="FLUX.1 [dev] Non-Commercial License",
    height=1024,
    width=1024,
    multiple=16,
    steps=50,
    guidance=3.5,
    text_tokens=_PIPELINE_TEXT_TOKENS,
    transformer={  # transformer/config.json of black-forest-labs/FLUX.1-dev
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": True,
        "axes_dims_rope": (16, 56, 56),
    },
    scheduler={  # scheduler/scheduler_config.json of black-forest-labs/FLUX.1-dev
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
    },
)
