"""What families of video pipelines share: latents (B, C, F, h, w), a number of frames, decoding to frames.

A scale applies to height and width; the frames stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuner.errors import UserError
from tuner.models._diffusers import PipelineBlueprint
from tuner.models._pipeline_model import PipelineModel
from tuner.models.base import Size

if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclass(frozen=True, kw_only=True)
class VideoBlueprint(PipelineBlueprint):
    """A video model that runs in a diffusers pipeline, without its weights.

    Attributes:
        frame_factor: Frames per latent frame; the first latent frame is one frame alone.
    """

    draws_float32 = True

    frame_factor: int

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        """Returns the shape of one video's latents, (C, F, h, w)."""
        frames = (self.frames - 1) // self.frame_factor + 1
        return self.channels, frames, size[0] // self.vae_factor, size[1] // self.vae_factor

    def with_frames(self, frames: int) -> VideoBlueprint:
        """Returns the same model for videos of another length; see `Blueprint.with_frames`."""
        multiple = self.frame_multiple
        if frames < 1 or (frames - 1) % multiple:
            nearest = max(round((frames - 1) / multiple), 0) * multiple + 1
            raise UserError(
                f"{frames} frames do not fit {self.name}: the number must be 1 more than a multiple of "
                f"{multiple}; try {nearest}."
            )
        return replace(self, frames=frames)

    @property
    def frame_multiple(self) -> int:
        """Numbers of frames are 1 more than a multiple of this."""
        return self.frame_factor


class VideoModel(PipelineModel):
    """A loaded video pipeline."""

    def decode(self, x_BCFHW: torch.Tensor) -> list[list[Image.Image]]:
        """Turns clean latents into B videos, each a list of frames, one after the other; see `FlowModel.decode`.

        A video takes much memory to decode, and the decoder of HunyuanVideo 1.5 takes no batches.
        """
        import torch

        vae = self.pipe.vae
        with torch.no_grad():
            rows = self.unscaled(x_BCFHW).to(vae.dtype).chunk(len(x_BCFHW))
            pixels = torch.cat([vae.decode(row, return_dict=False)[0] for row in rows])
        videos: list[list[Image.Image]] = self.pipe.video_processor.postprocess_video(
            pixels, output_type=self.output_type
        )
        return videos
