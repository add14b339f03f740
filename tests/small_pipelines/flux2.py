from __future__ import annotations

from typing import Any

from tests.small_pipelines import parts
from tuner.models._packed import unpack_2x2

SIZES = [(32, 32), (48, 80)]
TEXT_TOKENS = 24
_LAYERS = 31  # the pipeline reads the hidden states 10, 20 and 30


def build(seed: int = 0) -> Any:
    import torch
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2Pipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    torch.manual_seed(seed)
    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
    )
    vae = AutoencoderKLFlux2(**parts.vae_values())
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 1.5)
    mistral = Mistral3ForConditionalGeneration(
        Mistral3Config(
            text_config={
                "model_type": "mistral",
                **parts.decoder_values(8, _LAYERS),
            },
            vision_config={
                "model_type": "pixtral",
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 32,
                "patch_size": 8,
            },
        )
    )
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return parts.ready(Flux2Pipeline(scheduler, vae, mistral, parts.chat_tokenizer(), transformer))


def stock_latents(
    pipe: Any, blueprint: Any, prompts: list[str], seeds: list[int], steps: int, size: tuple[int, int]
) -> Any:
    packed = parts.latents(pipe, blueprint, prompts, seeds, steps, size, max_sequence_length=blueprint.text_tokens)
    return unpack_2x2(packed, size[0] // blueprint.vae_factor, size[1] // blueprint.vae_factor)
