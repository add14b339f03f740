from __future__ import annotations

from typing import Any

from tests.small_pipelines import parts

SIZES = [(32, 32), (48, 80)]


def build(seed: int = 0, boundary_ratio: float | None = None) -> Any:
    import torch
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

    torch.manual_seed(seed)
    networks = [
        WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            text_dim=32,
            freq_dim=16,
            ffn_dim=32,
            num_layers=2,
            rope_max_seq_len=32,
        )
        for _ in range(1 if boundary_ratio is None else 2)
    ]
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.5, 2.0, 1.0],
        scale_factor_spatial=2,
        scale_factor_temporal=2,
    )
    pipe = WanPipeline(
        tokenizer=parts.word_tokenizer(),
        text_encoder=parts.t5(),
        vae=vae,
        scheduler=UniPCMultistepScheduler(use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction"),
        transformer=networks[0],
        transformer_2=networks[1] if boundary_ratio else None,
        boundary_ratio=boundary_ratio,
    )
    return parts.ready(pipe)


def stock_latents(
    pipe: Any, blueprint: Any, prompts: list[str], seeds: list[int], steps: int, size: tuple[int, int]
) -> Any:
    scale_2 = blueprint.low_guidance
    return parts.latents(
        pipe,
        blueprint,
        prompts,
        seeds,
        steps,
        size,
        negative_prompt=[blueprint.negative_prompt] * len(prompts),
        max_sequence_length=blueprint.text_tokens,
        guidance_scale_2=scale_2,
    )
