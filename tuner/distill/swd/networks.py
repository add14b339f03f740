"""The three networks of the distillation, on one copy of the frozen weights.

Teacher, student and critic share the pretrained weights in memory; student and critic add a LoRA of their own.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tuner.errors import UserError
from tuner.models import Conditioning, FlowModel
from tuner.models._pipeline_model import PipelineModel

ADAPTER = "swd"
_BLOCKS = ("transformer_blocks", "single_transformer_blocks")


def with_lora(model: PipelineModel, rank: int, seed: int) -> PipelineModel:
    """Copies a model, sharing its weights, and adds a trainable LoRA to its transformer.

    The LoRA is on every linear layer of the transformer blocks, modulations included; it starts at zero, so
    that the copy predicts what the model does, but for classifier-free guidance: the copy makes a single pass.
    A guidance scale that is an input of the network stays one.

    Args:
        model: The pretrained model; it stays as it is.
        rank: Rank of the LoRA's matrices; its alpha is the same number.
        seed: Seed of the initial weights.
    """
    from peft import LoraConfig

    original = denoiser(model)
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*original.parameters(), *original.buffers())}
    transformer = copy.deepcopy(original, shared)
    transformer.requires_grad_(False)
    targets = [
        f"{stack}.{name}"
        for stack in _BLOCKS
        for name, module in getattr(transformer, stack, nn.Module()).named_modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), ADAPTER)
    for parameter in trainable(transformer):
        parameter.data = parameter.data.float()
    twin = copy.copy(model)
    if model.blueprint.passes > 1:
        twin.blueprint = replace(model.blueprint, guidance=1.0)
    twin.pipe = copy.copy(model.pipe)
    twin.pipe.transformer = transformer
    return twin


def distillable(model: FlowModel) -> PipelineModel:
    """Returns the model, if its network has the blocks that the losses look into.

    Raises:
        UserError: If it has not.
    """
    transformer = getattr(getattr(model, "pipe", None), "transformer", None)
    if not isinstance(model, PipelineModel) or not hasattr(transformer, _BLOCKS[0]):
        raise UserError(
            f"Model {model.blueprint.name!r} cannot be distilled: its pipeline has no transformer with "
            f"`{_BLOCKS[0]}`; take a model of the FLUX or SD3 family."
        )
    return model


def denoiser(model: PipelineModel) -> Any:
    """Returns the transformer that a model's velocity calls."""
    return model.pipe.transformer


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Lists the parameters that training changes."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def middle_block(model: PipelineModel) -> nn.Module:
    """Returns the transformer block whose output the patch loss and the discriminator look at.

    It is the one in the middle, as in the published training (block 11 of the 24 of SD3.5 medium).
    """
    transformer = denoiser(model)
    blocks = [block for stack in _BLOCKS for block in getattr(transformer, stack, ())]
    found: nn.Module = blocks[(len(blocks) - 1) // 2]
    return found


class _Left(Exception):  # noqa: N818 - no error: how a forward is left early
    """Ends a forward pass once the features are computed."""


def velocity(
    model: PipelineModel, x_BChw: torch.Tensor, levels_B: torch.Tensor, conditioning: Conditioning
) -> torch.Tensor:
    """Returns the velocity (B, C, h, w) of latents of which each has a noise level of its own.

    The timesteps of FLUX and SD3 are proportional to the noise level, so the network is called at level 1, and its
    timesteps are multiplied by the levels.
    """

    def scale(module: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        timestep = named["timestep"]
        levels = levels_B.repeat(len(timestep) // len(levels_B))  # guidance may call with every image twice
        return inputs, named | {"timestep": timestep * levels.to(timestep)}

    handle = denoiser(model).register_forward_pre_hook(scale, with_kwargs=True)
    try:
        return model.velocity(x_BChw, 1.0, conditioning)
    finally:
        handle.remove()


def features(
    model: PipelineModel, x_BChw: torch.Tensor, levels_B: torch.Tensor, conditioning: Conditioning
) -> torch.Tensor:
    """Returns the image tokens (B, N, D) behind the middle block; the blocks after it need not run.

    With gradient checkpointing they do, because a checkpointed block must not be left by an exception.
    """
    leave = not denoiser(model).gradient_checkpointing
    with _recorded(middle_block(model), leave) as found, contextlib.suppress(_Left):
        velocity(model, x_BChw, levels_B, conditioning)
    return found[0]


def velocity_and_features(
    model: PipelineModel, x_BChw: torch.Tensor, levels_B: torch.Tensor, conditioning: Conditioning
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the velocity (B, C, h, w) and the image tokens (B, N, D) of one forward."""
    with _recorded(middle_block(model), leave=False) as found:
        velocity_BChw = velocity(model, x_BChw, levels_B, conditioning)
    return velocity_BChw, found[0]


@contextlib.contextmanager
def _recorded(block: nn.Module, leave: bool) -> Iterator[list[torch.Tensor]]:
    found: list[torch.Tensor] = []

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        # FLUX and SD3 blocks return (text tokens, image tokens).
        found.append(output[-1] if isinstance(output, tuple) else output)
        if leave:
            raise _Left

    handle = block.register_forward_hook(record)
    try:
        yield found
    finally:
        handle.remove()


class Head(nn.Module):
    """The discriminator's head: mean image token in, one logit per image out (DMD2, arXiv 2405.14867, 4.3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, tokens_BND: torch.Tensor) -> torch.Tensor:
        """Returns logits (B,), positive for images taken for real."""
        logits: torch.Tensor = self.layers(tokens_BND.float().mean(dim=1))[:, 0]
        return logits
