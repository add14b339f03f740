from __future__ import annotations

from typing import Any

from tests.small_pipelines import generators, parts
from tuner.models._diffusers import unpack_2x2

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
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=4,
        sample_size=32,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 1.5)
    mistral = Mistral3ForConditionalGeneration(
        Mistral3Config(
            text_config={
                "model_type": "mistral",
                "vocab_size": len(parts.WORDS),
                "hidden_size": 8,
                "intermediate_size": 16,
                "num_hidden_layers": _LAYERS,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 4,
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
    packed = pipe(
        prompt=prompts,
        height=size[0],
        width=size[1],
        num_inference_steps=steps,
        guidance_scale=blueprint.guidance,
        max_sequence_length=blueprint.text_tokens,
        generator=generators(seeds),
        output_type="latent",
    ).images
    return unpack_2x2(packed, size[0] // blueprint.vae_factor, size[1] // blueprint.vae_factor)
