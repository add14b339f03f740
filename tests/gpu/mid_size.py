"""Pipelines of a few blocks of the full width, with random weights and random conditioning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import diffusers
import torch

from benchmarks.gpu_models import random_weights
from tests.small_pipelines.parts import generators
from tuner.models import blueprint
from tuner.models._diffusers import PipelineBlueprint
from tuner.models._pipeline_model import PipelineModel
from tuner.models.base import Conditioning

BLOCKS: dict[str, dict[str, Any]] = {
    "flux": {"num_layers": 2, "num_single_layers": 4},
    "sd3.5-medium": {"num_layers": 4},
    "wan2.1-1.3b": {"num_layers": 4},
}
NARROW: dict[str, dict[str, Any]] = {  # for a CPU
    "flux": {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2},
    "sd3.5-medium": {"num_layers": 2, "num_attention_heads": 2, "caption_projection_dim": 128},
    "wan2.1-1.3b": {"num_layers": 2, "num_attention_heads": 2, "ffn_dim": 64},
}
_WITHOUT = {
    "FluxPipeline": ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
    "StableDiffusion3Pipeline": (
        *("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3"),
    ),
    "WanPipeline": ("vae", "text_encoder", "tokenizer"),
}


@dataclass(frozen=True)
class MidSize:
    """A pipeline without text encoders and autoencoder, and its model."""

    known: PipelineBlueprint
    pipe: Any
    model: PipelineModel

    def text(self, rows: int) -> Conditioning:
        """Returns conditioning of as many rows, each different."""
        network, passes = self.pipe.transformer, self.known.passes
        with torch.device("meta"):
            shapes = self.known.meta_text(network.config)
        generator = torch.Generator("cpu").manual_seed(0)
        names = [*shapes, *(f"negative_{name}" for name in shapes if passes > 1)]
        return {
            name: torch.randn(rows, *shapes[name.removeprefix("negative_")].shape[1:], generator=generator).to(
                network.device, network.dtype
            )
            for name in names
        }

    def stock(self, text: Conditioning, seeds: list[int], steps: int) -> torch.Tensor:
        """Runs the pipeline itself; returns its latents as the model has them."""
        pooled = {
            name.replace("pooled", "pooled_prompt_embeds"): rows
            for name, rows in text.items()
            if name.endswith("pooled")
        }
        embeds = {
            name.replace("tokens", "prompt_embeds"): rows for name, rows in text.items() if name.endswith("tokens")
        }
        frames = {} if self.known.fps is None else {"num_frames": self.known.frames}
        latents: torch.Tensor = self.pipe(
            height=self.known.height,
            width=self.known.width,
            num_inference_steps=steps,
            guidance_scale=self.known.guidance,
            generator=generators(seeds),
            output_type="latent",
            **embeds,
            **pooled,
            **frames,
        )[0]
        if self.known.pipeline_class == "FluxPipeline":
            latents = self.pipe._unpack_latents(latents, *self.known.size, self.pipe.vae_scale_factor)
        return latents.float()


def mid_size(name: str, device: str) -> MidSize:
    """Builds a pipeline by the short name of its model; one of a few channels if it is for a CPU."""
    found, cpu = blueprint(name), device == "cpu"
    assert isinstance(found, PipelineBlueprint)
    network = dict(found.transformer) | (NARROW if cpu else BLOCKS)[name]
    side = 128 if cpu else 512
    known = replace(found, transformer=network, height=side, width=side, text_tokens=64)
    known = known if known.fps is None else known.with_frames(9)
    scheduler = {"shift": 3.0} if known.fps else known.scheduler
    pipe = getattr(diffusers, known.pipeline_class)(
        transformer=random_weights(known.transformer_class, network, device),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**scheduler),
        **dict.fromkeys(_WITHOUT[known.pipeline_class]),
    )
    pipe.set_progress_bar_config(disable=True)
    known = replace(known, scheduler=dict(pipe.scheduler.config))
    return MidSize(known, pipe, known.wrap(pipe))
