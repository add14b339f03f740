from __future__ import annotations

from typing import Any

from tests.small_pipelines import parts

SIZES = [(32, 32), (64, 96)]  # the pipeline refuses what 32 does not divide
TEXT_TOKENS = 8


def build(seed: int = 0) -> Any:
    import torch
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    torch.manual_seed(seed)
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=4,
        num_attention_heads=2,
        cross_attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=16,
        patch_size=1,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    gemma = Gemma2Model(Gemma2Config(**parts.decoder_values(8)))
    scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, flow_shift=3.0, prediction_type="flow_prediction"
    )
    return parts.ready(SanaPipeline(parts.word_tokenizer(1024), gemma, vae, transformer, scheduler))


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
