from __future__ import annotations

from typing import Any

from tests.small_pipelines import parts

SIZES = [(32, 32), (48, 80)]


def build(seed: int = 0) -> Any:
    import torch
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, 0.2, 0.3, 0.4],
        latents_std=[1.0, 1.1, 1.2, 1.3],
    )
    qwen = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                **parts.decoder_values(16),
                "rope_parameters": {"mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 1e6},
            },
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_heads": 2,
                "out_hidden_size": 16,
            },
        )
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=0.9,
        base_image_seq_len=16,
        max_image_seq_len=512,
        shift_terminal=0.02,
    )
    return parts.ready(QwenImagePipeline(scheduler, vae, qwen, parts.chat_tokenizer(), transformer))


def stock_latents(
    pipe: Any, blueprint: Any, prompts: list[str], seeds: list[int], steps: int, size: tuple[int, int]
) -> Any:
    scale = {"guidance_scale": None, "true_cfg_scale": blueprint.guidance}  # the first is for distilled guidance
    packed = parts.latents(
        pipe,
        blueprint,
        prompts,
        seeds,
        steps,
        size,
        negative_prompt=[blueprint.negative_prompt] * len(prompts),
        **scale,
    )
    return pipe._unpack_latents(packed, *size, pipe.vae_scale_factor)[:, :, 0]
