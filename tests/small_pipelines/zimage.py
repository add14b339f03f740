from __future__ import annotations

from typing import Any

from tests.small_pipelines import parts

SIZES = [(32, 32), (48, 80)]


def build(seed: int = 0) -> Any:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(seed)
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=(8, 4, 4),
        axes_lens=(256, 64, 64),
    )
    qwen = Qwen3Model(Qwen3Config(**parts.decoder_values(16, layers=2)))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0)
    return parts.ready(ZImagePipeline(scheduler, parts.vae(), qwen, parts.chat_tokenizer(), transformer))


def stock_latents(
    pipe: Any, blueprint: Any, prompts: list[str], seeds: list[int], steps: int, size: tuple[int, int]
) -> Any:
    return parts.latents(pipe, blueprint, prompts, seeds, steps, size)
