from __future__ import annotations

from typing import Any

from tests.small_pipelines import parts

SIZES = [(32, 32), (48, 80)]
TEXT_TOKENS = 8


def build(seed: int = 0) -> Any:
    import torch
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        ClassifierFreeGuidance,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideo15Pipeline,
        HunyuanVideo15Transformer3DModel,
    )
    from transformers import Qwen2_5_VLTextModel
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig

    torch.manual_seed(seed)
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_refiner_layers=1,
        text_embed_dim=16,
        text_embed_2_dim=32,
        image_embed_dim=8,
        rope_axes_dim=(4, 6, 6),
        target_size=64,
    )
    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
    )
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 1e6}
    qwen = Qwen2_5_VLTextModel(Qwen2_5_VLTextConfig(**parts.decoder_values(16, layers=3), rope_parameters=rope))
    pipe = HunyuanVideo15Pipeline(
        text_encoder=qwen,
        tokenizer=parts.chat_tokenizer(),
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        text_encoder_2=parts.t5(),
        tokenizer_2=parts.word_tokenizer(256),
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
    )
    # The conversation's start is one word for each of its two roles and none for the instruction.
    pipe.system_message, pipe.prompt_template_encode_start_idx, pipe.tokenizer_max_length = "", 2, TEXT_TOKENS
    return parts.ready(pipe)


def stock_latents(
    pipe: Any, blueprint: Any, prompts: list[str], seeds: list[int], steps: int, size: tuple[int, int]
) -> Any:
    """Runs the pipeline, whose guider has the guidance scale."""
    return parts.latents(pipe, blueprint, prompts, seeds, steps, size, guidance_scale=None)
