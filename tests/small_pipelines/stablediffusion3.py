from __future__ import annotations

from typing import Any

from tests.small_pipelines import parts

SIZES = [(32, 32), (48, 80)]


def build(seed: int = 0) -> Any:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        caption_projection_dim=32,
        pooled_projection_dim=32,
        pos_embed_max_size=32,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    clips = [CLIPTextModelWithProjection(parts.clip_config(projection_dim=16)) for _ in range(2)]
    pipe = StableDiffusion3Pipeline(
        transformer,
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        parts.vae(),
        clips[0],
        parts.word_tokenizer(),
        clips[1],
        parts.word_tokenizer(),
        parts.t5(48),
        parts.word_tokenizer(),
    )
    return parts.ready(pipe)


def stock_latents(
    pipe: Any, blueprint: Any, prompts: list[str], seeds: list[int], steps: int, size: tuple[int, int]
) -> Any:
    return parts.latents(
        pipe, blueprint, prompts, seeds, steps, size, negative_prompt=[blueprint.negative_prompt] * len(prompts)
    )
