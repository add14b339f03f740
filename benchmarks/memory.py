"""Counts what the weights of a FLUX.1-dev worker take, part by part: ``python -m benchmarks.memory``.

Everything is built from its published configuration on the meta device, so nothing is loaded. The scorers are the
default objectives of ``tuner search``, in single precision as they run. Only the transformer and the text encoders
are quantised.
"""

from __future__ import annotations

from typing import Any

import torch

from tuner.cli._common import print_table
from tuner.memory import of_networks
from tuner.models import blueprint


def text_encoders() -> list[Any]:
    """Builds text_encoder_2 (T5 v1.1 XXL) and text_encoder (CLIP ViT-L/14) of black-forest-labs/FLUX.1-dev."""
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    t5 = T5Config(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    clip = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    return [T5EncoderModel(t5), CLIPTextModel(clip)]


def vae() -> list[Any]:
    """Builds the autoencoder of black-forest-labs/FLUX.1-dev."""
    from diffusers import AutoencoderKL

    return [
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=16,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    ]


def scorers() -> list[Any]:
    """Builds the networks of ``clip`` (ViT-L/14) and of ``image_reward``."""
    import open_clip

    from objectives._blip_reward import BlipReward, RewardConfig

    reward = RewardConfig(
        image_size=224,
        patch_size=16,
        vision_width=1024,
        vision_layers=24,
        vision_mlp_width=4096,
        text={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "vocab_size": 30524,
            "max_position_embeddings": 512,
        },
        head_widths=(1024, 128, 64, 16, 1),
    )
    return [open_clip.create_model("ViT-L-14", device="meta"), BlipReward(reward)]


def main() -> None:
    """Prints a row for every part, in GB of 1e9 bytes, and one for all together."""
    with torch.device("meta"):
        counted = {
            "transformer": of_networks(blueprint("flux").meta_networks()),
            "text encoders": of_networks(text_encoders()),
            "VAE": of_networks(vae()),
            "scorers": of_networks(scorers()),
        }
    rows = []
    for part, weights in counted.items():
        sizes = [weights.bf16_bytes, weights.int8_bytes, weights.nf4_bytes]
        if part == "VAE":
            sizes = [weights.bf16_bytes] * 3
        elif part == "scorers":
            sizes = [2 * weights.bf16_bytes] * 3
        rows.append([weights.parameters, *(size / 1e9 for size in sizes)])
    rows.append([sum(column) for column in zip(*rows, strict=True)])
    print_table(
        ["part", "parameters", "bf16 GB", "int8 GB", "nf4 GB"],
        [
            [part, f"{parameters:,}", *(f"{size:.2f}" for size in sizes)]
            for part, (parameters, *sizes) in zip([*counted, "together"], rows, strict=True)
        ],
    )


if __name__ == "__main__":
    main()
