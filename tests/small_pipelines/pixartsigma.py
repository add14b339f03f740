from __future__ import annotations

from typing import Any

from tests.small_pipelines import parts

SIZES = [(32, 32), (48, 80)]
TEXT_TOKENS = 8


def build(seed: int = 0) -> Any:
    import torch
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    torch.manual_seed(seed)
    transformer = PixArtTransformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=3,
        cross_attention_dim=24,
        caption_channels=32,
        use_additional_conditions=False,
    )
    # At the usual beta_end of 0.02 a random network's latents are about 190, so that float32 rounds them by 1e-4.
    scheduler = DPMSolverMultistepScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.006)
    return parts.ready(
        PixArtSigmaPipeline(parts.word_tokenizer(), parts.t5(), parts.vae(), transformer, scheduler)
    )


def stock_latents(
    pipe: Any, blueprint: Any, prompts: list[str], seeds: list[int], steps: int, size: tuple[int, int]
) -> Any:
    negative = blueprint.negative_prompt
    return parts.latents(
        pipe,
        blueprint,
        prompts,
        seeds,
        steps,
        size,
        negative_prompt=negative,
        max_sequence_length=blueprint.text_tokens,
        use_resolution_binning=False,
    )
