from __future__ import annotations

from typing import Any

from tests.small_pipelines import parts

SIZES = [(32, 32), (48, 80)]


def build(seed: int = 0) -> Any:
    import torch
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )
    from transformers import CLIPTextModel, LlamaConfig, LlamaModel

    torch.manual_seed(seed)
    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=32,
        pooled_projection_dim=24,
        rope_axes_dim=(4, 6, 6),
    )
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
    )
    llama = LlamaModel(LlamaConfig(**parts.decoder_values(32, layers=3), pad_token_id=0))
    pipe = HunyuanVideoPipeline(
        text_encoder=llama,
        tokenizer=parts.word_tokenizer(512),
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=CLIPTextModel(parts.clip_config(max_position_embeddings=77)),
        tokenizer_2=parts.word_tokenizer(77),
    )
    return parts.ready(pipe)


def stock_latents(
    pipe: Any, blueprint: Any, prompts: list[str], seeds: list[int], steps: int, size: tuple[int, int]
) -> Any:
    return parts.latents(pipe, blueprint, prompts, seeds, steps, size)
