from __future__ import annotations

from typing import Any

from tests.small_pipelines import parts

SIZES = [(32, 32), (48, 80)]
TEXT_TOKENS = 8


def build(seed: int = 0) -> Any:
    import torch
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    torch.manual_seed(seed)
    transformer = ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(use_beta_sigmas=True)
    return parts.ready(ChromaPipeline(scheduler, parts.vae(), parts.t5(), parts.word_tokenizer(), transformer))


def stock_latents(
    pipe: Any, blueprint: Any, prompts: list[str], seeds: list[int], steps: int, size: tuple[int, int]
) -> Any:
    packed = parts.latents(pipe, blueprint, prompts, seeds, steps, size, max_sequence_length=blueprint.text_tokens)
    return pipe._unpack_latents(packed, *size, pipe.vae_scale_factor)
