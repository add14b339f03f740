"""Counts what the weights of a FLUX.1-dev worker take, part by part: ``python -m benchmarks.memory``.

Everything is built from its published configuration on the meta device, so nothing is loaded. The scorers are the
default objectives of ``tuner search``, in single precision as they run. Only the transformer and the text encoders
are quantised.
"""

from __future__ import annotations

from typing import Any

import torch

from tuner.cli._common import print_table
from tuner.memory import Precision, network_of, weights
from tuner.models import blueprint

_NOT_QUANTISED: dict[str, Precision] = {"VAE": "bfloat16", "scorers": "float32"}


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
    flux = weights(blueprint("flux"))
    assert flux.autoencoder is not None  # FLUX names it
    networks = {"transformer": flux.denoisers, "text encoders": flux.text, "VAE": (flux.autoencoder,)}
    with torch.device("meta"):
        networks["scorers"] = tuple(map(network_of, scorers()))
    rows = []
    for part, of_part in networks.items():
        precisions: list[Precision] = ["bfloat16", "int8", "nf4"]
        if part in _NOT_QUANTISED:
            precisions = [_NOT_QUANTISED[part]] * 3
        sizes = [sum(network.bytes(precision) for network in of_part) / 1e9 for precision in precisions]
        rows.append([sum(network.parameters for network in of_part), *sizes])
    rows.append([sum(column) for column in zip(*rows, strict=True)])
    print_table(
        ["part", "parameters", "bf16 GB", "int8 GB", "nf4 GB"],
        [
            [part, f"{parameters:,}", *(f"{size:.2f}" for size in sizes)]
            for part, (parameters, *sizes) in zip([*networks, "together"], rows, strict=True)
        ],
    )


if __name__ == "__main__":
    main()
