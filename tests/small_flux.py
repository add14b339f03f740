"""A FluxPipeline of the real classes with small random weights, made in code: nothing is downloaded."""

from __future__ import annotations

from typing import Any

WORDS = ["<pad>", "</s>", "<unk>", "a", "red", "blue", "fox", "circle", "above", "square"]


def small_flux(*, guidance_embeds: bool = True, seed: int = 0) -> Any:
    """Builds a pipeline with a 2-block transformer, an 8x VAE and 8-token prompts (about 0.2 s)."""
    import torch
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=8
    )
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
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=4,
        sample_size=32,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.1,
        scaling_factor=0.5,
    )
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(WORDS),
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8,
            eos_token_id=1,
            pad_token_id=0,
            bos_token_id=3,
        )
    )
    t5 = T5EncoderModel(T5Config(vocab_size=len(WORDS), d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4))
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
    import torch

    packed = pipe(
        prompts,
        height=size[0],
        width=size[1],
        num_inference_steps=steps,
        guidance_scale=3.5,
        max_sequence_length=text_tokens,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="latent",
    ).images
    return pipe._unpack_latents(packed, *size, pipe.vae_scale_factor)
