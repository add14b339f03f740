"""What families share whose network sees patches of 2 x 2 latent pixels as tokens: FLUX and those after it.

Latents are spatial outside and packed inside: (B, C, h, w) <-> (B, h/2 * w/2, 4C).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.models._diffusers import PipelineBlueprint
from tuner.models.base import Conditioning

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class PackedBlueprint(PipelineBlueprint):
    """A model of packed latents, without its weights."""

    @abstractmethod
    def inputs(self, packed_BTD: torch.Tensor, grid: tuple[int, int], text: Conditioning) -> dict[str, Any]:
        """Returns what the network takes beside the packed latents and the timestep.

        Args:
            packed_BTD: Packed latents (B, T, 4C).
            grid: Rows and columns of patches, whose product is T.
            text: What ``PipelineModel.encode_text`` returned, or ``meta_text``.
        """

    @property
    def channels(self) -> int:
        """A token holds the channels of 2 x 2 latent pixels."""
        return int(self.transformer["in_channels"]) // 4

    def forward(self, transformer: Any, x_BCHW: torch.Tensor, sigma: float, text: Conditioning) -> torch.Tensor:
        """Packs the latents and calls the transformer, timestep sigma; see `PipelineBlueprint.forward`."""
        height, width = x_BCHW.shape[-2:]
        packed_BTD = pack_2x2(x_BCHW).to(transformer.dtype)
        velocity_BTD = transformer(
            hidden_states=packed_BTD,
            timestep=_timestep(sigma, packed_BTD),
            return_dict=False,
            **self.inputs(packed_BTD, (height // 2, width // 2), text),
        )[0]
        return unpack_2x2(velocity_BTD, height, width).float()


def _timestep(sigma: float, packed_BTD: torch.Tensor) -> torch.Tensor:
    """Returns sigma (B,) as the pipelines round it: in half precision they round 1000 sigma and then divide."""
    import torch

    batch, device, dtype = len(packed_BTD), packed_BTD.device, packed_BTD.dtype
    if dtype == torch.float32:  # both orders are as close to sigma as the pipelines' own levels are
        return torch.full((batch,), sigma, device=device, dtype=dtype)
    return torch.full((batch,), 1000 * sigma, device=device, dtype=dtype) / 1000


def pack_2x2(x_BCHW: torch.Tensor) -> torch.Tensor:
    """Packs patches of 2 x 2 latent pixels into tokens: (B, C, h, w) -> (B, h/2 * w/2, 4C), channel first."""
    batch, channels, height, width = x_BCHW.shape
    patches = x_BCHW.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, height // 2 * (width // 2), 4 * channels)


def unpack_2x2(tokens_BTD: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Undoes ``pack_2x2``: (B, h/2 * w/2, 4C) -> (B, C, h, w)."""
    batch, _, packed = tokens_BTD.shape
    patches = tokens_BTD.reshape(batch, height // 2, width // 2, packed // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(batch, packed // 4, height, width)


def grid_ids(grid: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Returns the position ids (0, row, column) of an image's tokens, whole numbers (rows * columns, 3)."""
    import torch

    rows, columns = grid
    ids = torch.zeros(rows, columns, 3, device=device, dtype=torch.long)
    ids[..., 1] = torch.arange(rows, device=device)[:, None]
    ids[..., 2] = torch.arange(columns, device=device)
    return ids.view(rows * columns, 3)
