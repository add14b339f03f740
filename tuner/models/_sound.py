"""What families share that draw sound with their videos: where in the latents the sound is.

Two latents are denoised at the same noise level, the picture's (B, C, F, h, w) and the sound's, (B, L, D) with L
moments of D values. They travel as one tensor (B, C, F + k, h, w): behind the last latent frame the sound's values
fill k more frames, with zeros behind them. Noise levels, steps and whatever is kept between stages are thus those
of both. A change of size concerns the picture alone, and the number k follows from the size.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.models._video import VideoBlueprint, VideoModel
from tuner.models.base import Size

if TYPE_CHECKING:
    import torch
    from PIL import Image


class SoundModel(VideoModel):
    """A loaded pipeline of videos with sound."""

    blueprint: SoundBlueprint

    def draw(self, size: Size, generator: torch.Generator) -> torch.Tensor:
        """Draws the noise of one video's picture and then that of its sound; see `PipelineModel.draw`."""
        import torch

        known = self.blueprint
        moments, values = known.sound_shape
        picture_BCFHW = torch.randn((1, *known.picture_shape(size)), generator=generator)
        shape = 1, known.sound_channels, moments, values // known.sound_channels
        sound_BCLM = torch.randn(shape, generator=generator)
        return known.joined(picture_BCFHW, sound_BCLM.transpose(1, 2).flatten(2))

    def picture(self, x_BCFHW: torch.Tensor) -> torch.Tensor:
        """Returns the latent frames of the picture; see `FlowModel.picture`."""
        return self.blueprint.parted(x_BCFHW)[0]

    def with_picture(self, x_BCFHW: torch.Tensor, picture_BCFHW: torch.Tensor) -> torch.Tensor:
        """Puts a picture, maybe of another size, before the sound; see `FlowModel.with_picture`."""
        return self.blueprint.joined(picture_BCFHW, self.blueprint.parted(x_BCFHW)[1])

    def decode(self, x_BCFHW: torch.Tensor) -> list[list[Image.Image]]:
        """Decodes the picture; see `FlowModel.decode`."""
        return super().decode(self.picture(x_BCFHW))


@dataclass(frozen=True, kw_only=True)
class SoundBlueprint(VideoBlueprint):
    """A model of videos with sound, without its weights.

    Attributes:
        sound_rate: Moments of the sound's latents per second.
        sound_channels: Channels of the sound's latents; the other values of a moment are frequencies.
    """

    sound_rate: float
    sound_channels: int

    @property
    def has_sound(self) -> bool:
        """See `Blueprint.has_sound`."""
        return True

    @property
    @abstractmethod
    def sound_values(self) -> int:
        """Values of a moment of the sound's latents."""

    @property
    def sound_shape(self) -> tuple[int, int]:
        """Moments L and values D of the sound's latents, which last as long as the frames."""
        assert self.fps is not None  # a video model has a frame rate
        return round(self.frames / self.fps * self.sound_rate), self.sound_values

    def picture_shape(self, size: Size) -> tuple[int, ...]:
        """Returns the shape of the latents of one video's picture, (C, F, h, w)."""
        return super().latent_shape(size)

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        """Returns the shape of one video's latents with its sound, (C, F + k, h, w)."""
        channels, frames, height, width = self.picture_shape(size)
        return channels, frames + self._sound_frames(channels * height * width), height, width

    def decoded_shape(self, size: Size) -> tuple[int, ...]:
        """The picture's; see `PipelineBlueprint.decoded_shape`."""
        return self.picture_shape(size)

    def joined(self, picture_BCFHW: torch.Tensor, sound_BLD: torch.Tensor) -> torch.Tensor:
        """Puts the sound (B, L, D) behind the picture (B, C, F, h, w): (B, C, F + k, h, w)."""
        import torch

        batch, channels, _, height, width = picture_BCFHW.shape
        frames = self._sound_frames(channels * height * width)
        room = frames * channels * height * width - math.prod(self.sound_shape)
        padded = torch.nn.functional.pad(sound_BLD.flatten(1), (0, room))
        return torch.cat([picture_BCFHW, padded.view(batch, channels, frames, height, width)], dim=2)

    def parted(self, x_BCFHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Undoes ``joined``: the picture (B, C, F, h, w) and the sound (B, L, D)."""
        frames = (self.frames - 1) // self.frame_factor + 1
        sound = x_BCFHW[:, :, frames:].flatten(1)[:, : math.prod(self.sound_shape)]
        return x_BCFHW[:, :, :frames], sound.reshape(-1, *self.sound_shape)

    def _sound_frames(self, frame_values: int) -> int:
        """Counts the latent frames, of so many values each, that the sound needs."""
        return math.ceil(math.prod(self.sound_shape) / frame_values)
