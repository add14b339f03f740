from __future__ import annotations

from typing import Any

from tests.small_pipelines import parts

SIZES = [(64, 64), (64, 96)]  # the pipeline refuses what 32 does not divide
TEXT_TOKENS = 8
FIELDS = {"perturbed_block": 1}  # the default is the 29th of 48

_LAYERS = 2
_LTX_2_0 = {"gated_attn": False, "cross_attn_mod": False, "perturbed_attn": False, "use_prompt_embeddings": True}


def build(seed: int = 0, first_version: bool = False) -> Any:
    """Makes a pipeline as LTX-2.3's is, or, as the first version, LTX-2.0's."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, LTX2Pipeline, LTX2VideoTransformer3DModel
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    torch.manual_seed(seed)
    newer = not first_version
    transformer = LTX2VideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        audio_in_channels=8,
        audio_out_channels=8,
        audio_num_attention_heads=2,
        audio_attention_head_dim=8,
        audio_cross_attention_dim=16,
        num_layers=2,
        caption_channels=16,
        rope_type="split",
        gated_attn=newer,
        cross_attn_mod=newer,
        audio_gated_attn=newer,
        audio_cross_attn_mod=newer,
        use_prompt_embeddings=first_version,
        perturbed_attn=newer,
    )
    connectors = LTX2TextConnectors(
        caption_channels=16,
        text_proj_in_factor=_LAYERS + 1,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=16 if newer else 8,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=4,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=4,
        connector_rope_base_seq_len=32,
        rope_type="split",
        per_modality_projections=newer,
        video_hidden_dim=32,
        audio_hidden_dim=16,
    )
    gemma = Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config={**parts.decoder_values(16, _LAYERS), "pad_token_id": 0},
            vision_config={
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "image_size": 14,
                "patch_size": 14,
            },
        )
    )
    pipe = LTX2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_shift=0.95,
            max_shift=2.05,
            base_image_seq_len=1024,
            max_image_seq_len=4096,
            shift_terminal=0.1,
        ),
        vae=_video_vae(),
        audio_vae=_audio_vae(),
        text_encoder=gemma,
        tokenizer=parts.word_tokenizer(),
        connectors=connectors,
        transformer=transformer,
        vocoder=LTX2Vocoder(
            in_channels=16,
            hidden_channels=8,
            upsample_kernel_sizes=[16, 15, 4],
            upsample_factors=[8, 5, 4],
            resnet_kernel_sizes=[3],
            resnet_dilations=[[1]],
            output_sampling_rate=16000,
        ),
    )
    return parts.ready(pipe)


def _video_vae() -> Any:
    from diffusers import AutoencoderKLLTX2Video

    vae = AutoencoderKLLTX2Video(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, True),
        decoder_spatio_temporal_scaling=(True, True, True),
        scaling_factor=0.5,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    vae.latents_mean.normal_()
    vae.latents_std.uniform_(0.5, 1.5)
    return vae


def _audio_vae() -> Any:
    from diffusers import AutoencoderKLLTX2Audio

    vae = AutoencoderKLLTX2Audio(
        base_channels=8, ch_mult=(1, 1, 1), num_res_blocks=1, latent_channels=4, mel_bins=8
    )
    vae.latents_mean.normal_()
    vae.latents_std.uniform_(0.5, 1.5)
    return vae


def stock_latents(
    pipe: Any, blueprint: Any, prompts: list[str], seeds: list[int], steps: int, size: tuple[int, int]
) -> Any:
    """Runs the pipeline with its own guidance, which is four passes, and normalises its latents again."""
    scale = blueprint.guidance
    off = {"audio_guidance_scale": 1, "stg_scale": 0, "audio_stg_scale": 0, "modality_scale": 1}
    video, audio = pipe(
        prompts,
        negative_prompt=[blueprint.negative_prompt] * len(prompts),
        height=size[0],
        width=size[1],
        num_frames=blueprint.frames,
        num_inference_steps=steps,
        guidance_scale=scale,
        spatio_temporal_guidance_blocks=[blueprint.perturbed_block],
        max_sequence_length=blueprint.text_tokens,
        generator=parts.generators(seeds),
        output_type="latent",
        return_dict=False,
        **(off | {"audio_modality_scale": 1} if scale <= 1 else {}),
    )
    vae, audio_vae = pipe.vae, pipe.audio_vae
    picture = pipe._normalize_latents(video, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    sound = pipe._normalize_audio_latents(
        pipe._pack_audio_latents(audio), audio_vae.latents_mean, audio_vae.latents_std
    )
    return blueprint.joined(picture, sound)
