"""How many bytes the weights of a network take, counted on meta tensors.

bitsandbytes keeps the weights of linear layers in fewer bits and everything else as it is. ``int8`` takes a byte
per weight and a float32 scale per row (arXiv 2208.07339, Sec. 2.1), ``nf4`` half a byte per weight and a float32
scale for every 64 (arXiv 2305.14314, Sec. 2, without its double quantisation, which is off here).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuner.models.base import Blueprint

_FLOAT32, _BF16 = 4, 2  # bytes per number
_SCALE = 4  # bytes per scale
_NF4_BLOCK = 64  # weights per scale


@dataclass(frozen=True)
class Weights:
    """Memory of networks.

    Attributes:
        parameters: Number of parameters.
        float32_bytes: All of them in single precision, as on a CPU.
        bf16_bytes: All of them in bfloat16.
        int8_bytes: Linear layers in eight bits, the rest in bfloat16.
        nf4_bytes: Linear layers in four bits, the rest in bfloat16.
    """

    parameters: int
    float32_bytes: int
    bf16_bytes: int
    int8_bytes: int
    nf4_bytes: int


def weights(blueprint: Blueprint) -> Weights:
    """Counts the weights of a model's denoiser, of both networks where it has two; nothing is loaded.

    Raises:
        UserError: If the model's family does not say how to build it.
    """
    return of_networks(blueprint.meta_networks())


def of_networks(networks: Sequence[Any]) -> Weights:
    """Counts the weights of torch modules, which may be on the meta device."""
    import torch

    parameters = sum(values.numel() for network in networks for values in network.parameters())
    layers = (module for network in networks for module in network.modules())
    linear = [layer.weight for layer in layers if isinstance(layer, torch.nn.Linear)]
    kept = _BF16 * (parameters - sum(weight.numel() for weight in linear))
    scales = sum(math.ceil(weight.numel() / _NF4_BLOCK) for weight in linear)
    return Weights(
        parameters=parameters,
        float32_bytes=_FLOAT32 * parameters,
        bf16_bytes=_BF16 * parameters,
        int8_bytes=kept + sum(weight.numel() + _SCALE * len(weight) for weight in linear),
        nf4_bytes=kept + sum(math.ceil(weight.numel() / 2) for weight in linear) + _SCALE * scales,
    )
