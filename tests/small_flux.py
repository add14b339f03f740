"""A FluxPipeline of the real classes with small random weights, made in code: nothing is downloaded."""

from __future__ import annotations

from typing import Any

from tests.small_pipelines import parts


def small_flux(*, guidance_embeds: bool = True, seed: int = 0) -> Any:
    """Builds a pipeline with a 2-block transformer, an 8x VAE and 8-token prompts (about 0.2 s)."""
    import torch
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )
    from transformers import CLIPTextModel

    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=24,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 6, 6),
    )
    vae, clip, t5 = parts.vae(), CLIPTextModel(parts.clip_config()), parts.t5()
    tokenizer = parts.word_tokenizer()
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=16,
        max_image_seq_len=256,
    )
    for module in (transformer, vae, clip, t5):
        module.eval()
    pipe = FluxPipeline(scheduler, vae, clip, tokenizer, t5, tokenizer, transformer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stock_latents(
    pipe: Any, prompts: list[str], seeds: list[int], steps: int, size: tuple[int, int], text_tokens: int = 8
) -> Any:
    """Runs the pipeline itself and returns its latents (B, C, h, w)."""
    packed = pipe(
        prompts,
        height=size[0],
        width=size[1],
        num_inference_steps=steps,
        guidance_scale=3.5,
        max_sequence_length=text_tokens,
        generator=parts.generators(seeds),
        output_type="latent",
    ).images
    return pipe._unpack_latents(packed, *size, pipe.vae_scale_factor)
