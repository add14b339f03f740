"""CogVideoX: diffusers' ``CogVideoXPipeline`` as a `FlowModel`.

The network knows z = a x0 + b e, with a^2 + b^2 = 1 and a = 0 at the last timestep, and predicts v = a e - b x0.
Read as a flow, sigma = b / (a + b) and x = z / (a + b) = (1 - sigma) x0 + sigma e, whose velocity is
``e - x0 = (b - a) z + (a + b) v``. An Euler step along it is DDIM's step without noise (arXiv 2010.02502, Eq. 12),
which ``CogVideoXDDIMScheduler`` makes and the baseline is. The 5B model's own ``CogVideoXDPMScheduler`` is a
stochastic multistep rule on the same levels.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.errors import UserError
from tuner.models._diffusers import empty_text, vae_factor
from tuner.models._parts import T5_XXL, autoencoder
from tuner.models._video import VideoBlueprint, VideoModel
from tuner.models.base import Conditioning, ReadConfig, Size

if TYPE_CHECKING:
    import numpy as np
    import torch

_PIPELINE_TEXT_TOKENS = 226  # CogVideoXPipeline's default max_sequence_length
_SUPPORTED = {
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
}


class CogVideoXModel(VideoModel):
    """A loaded CogVideoX pipeline."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with T5; see `PipelineModel.encode_text`."""
        tokens_BTD, _ = self.pipe.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.blueprint.text_tokens
        )
        return {"tokens": tokens_BTD}

    def draw(self, size: Size, generator: torch.Generator) -> torch.Tensor:
        """Draws frames before channels, as the pipeline does; see `PipelineModel.draw`."""
        import torch

        channels, frames, height, width = self.blueprint.latent_shape(size)
        shape = (1, frames, channels, height, width)
        noise_BFCHW = torch.randn(shape, generator=generator, dtype=self.pipe.transformer.dtype)
        return noise_BFCHW.transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class CogVideoXBlueprint(VideoBlueprint):
    """A model of the CogVideoX 1.0 family, without its weights."""

    pipeline_class = "CogVideoXPipeline"
    transformer_class = "CogVideoXTransformer3DModel"
    model_class = CogVideoXModel
    text_encoders = (T5_XXL,)
    autoencoder = autoencoder("AutoencoderKLCogVideoX")
    true_guidance = True
    schedulers = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")

    @property
    def frame_multiple(self) -> int:
        """The decoder takes latent frames two by two after the first; see `VideoBlueprint.frame_multiple`."""
        return 2 * self.frame_factor

    def sigmas(self, steps: int, size: Size) -> tuple[float, ...]:
        """Returns the levels of N timesteps that are evenly spaced from the last one, and 0."""
        levels = self._levels()
        last = len(levels)
        return (*(float(levels[round(last - last / steps * k) - 1]) for k in range(steps)), 0.0)

    def _levels(self) -> np.ndarray:
        """Returns the sigma of every training timestep."""
        config = self.scheduler
        for option, known in _SUPPORTED.items():
            if config.get(option) != known:
                raise UserError(
                    f"Scheduler option {option}={config.get(option)!r} is not supported; set it to {known!r}."
                )
        return _levels(
            config.get("num_train_timesteps", 1000),
            config.get("beta_start", 0.00085),
            config.get("beta_end", 0.012),
            config.get("snr_shift_scale", 3.0),
        )

    def timestep_and_signal(self, sigma: float) -> tuple[float, float]:
        """Returns the timestep at which the network is asked at a sigma, and the part ``a`` of the image."""
        import numpy as np

        levels = self._levels()
        return float(np.interp(sigma, levels, np.arange(len(levels)))), (1 - sigma) / float(
            np.hypot(1 - sigma, sigma)
        )

    def forward(self, transformer: Any, x_BCFHW: torch.Tensor, sigma: float, text: Conditioning) -> torch.Tensor:
        """Scales the latents to unit variance and calls the transformer; see `PipelineBlueprint.forward`."""
        import numpy as np
        import torch

        timestep, _ = self.timestep_and_signal(sigma)
        norm = float(np.hypot(1 - sigma, sigma))  # 1 / (a + b)
        batch, _, frames, height, width = x_BCFHW.shape
        z_BFCHW = (x_BCFHW / norm).transpose(1, 2).to(transformer.dtype)
        predicted_BFCHW = transformer(
            hidden_states=z_BFCHW,
            encoder_hidden_states=text["tokens"].to(transformer.dtype),
            timestep=torch.full((batch,), timestep, device=x_BCFHW.device, dtype=torch.float32),
            image_rotary_emb=_rotary_embedding(transformer.config, frames, height, width, x_BCFHW.device),
            return_dict=False,
        )[0]
        v_BCFHW = predicted_BFCHW.float().transpose(1, 2)
        velocity: torch.Tensor = x_BCFHW * ((2 * sigma - 1) / norm**2) + v_BCFHW / norm
        return velocity

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        return empty_text(tokens=(self.text_tokens, config.text_embed_dim))

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """See `PipelineBlueprint.described`."""
        if transformer.get("patch_size_t") is not None:
            raise UserError("CogVideoX 1.5, whose patches span frames, is not supported; use CogVideoX-5b.")
        factor = vae_factor(vae)
        return {
            "height": transformer.get("sample_height", 60) * factor,
            "width": transformer.get("sample_width", 90) * factor,
            "frames": transformer.get("sample_frames", 49),
            "multiple": transformer.get("patch_size", 2) * factor,
            "vae_factor": factor,
            "frame_factor": int(vae.get("temporal_compression_ratio", 4)),
            "text_tokens": transformer.get("max_text_seq_length", _PIPELINE_TEXT_TOKENS),
        }


@functools.lru_cache(maxsize=16)
def _levels(steps: int, start: float, end: float, snr_shift: float) -> np.ndarray:
    """Returns b / (a + b) of every training timestep, from the betas of ``CogVideoXDDIMScheduler``.

    The signal-to-noise ratio is divided by ``snr_shift``, and a is moved and stretched so that it ends at 0
    (arXiv 2305.08891, Alg. 1).
    """
    import numpy as np

    kept = np.cumprod(1 - np.linspace(start**0.5, end**0.5, steps) ** 2)
    signal = np.sqrt(kept / (snr_shift + (1 - snr_shift) * kept))
    signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
    noise = np.sqrt(1 - signal**2)
    levels: np.ndarray = noise / (signal + noise)
    return levels


def _rotary_embedding(
    config: Any, frames: int, height: int, width: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Returns the position embedding of the pipeline: the grid is fitted into the one of the training size."""
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

    if not config.use_rotary_positional_embeddings:
        return None
    patch = config.patch_size
    grid = height // patch, width // patch
    crops = get_resize_crop_region_for_grid(grid, config.sample_width // patch, config.sample_height // patch)
    embedding: tuple[torch.Tensor, torch.Tensor] = get_3d_rotary_pos_embed(
        config.attention_head_dim, crops, grid_size=grid, temporal_size=frames, device=device
    )
    return embedding


BLUEPRINT = CogVideoXBlueprint(
    name="cogvideox",
    source="zai-org/CogVideoX-5b",
    license="CogVideoX License",
    height=480,
    width=720,
    frames=49,
    fps=8,
    multiple=16,
    vae_factor=8,
    frame_factor=4,
    steps=50,
    guidance=6.0,
    text_tokens=_PIPELINE_TEXT_TOKENS,
    transformer={  # transformer/config.json of zai-org/CogVideoX-5b
        "num_attention_heads": 48,
        "attention_head_dim": 64,
        "in_channels": 16,
        "out_channels": 16,
        "time_embed_dim": 512,
        "text_embed_dim": 4096,
        "num_layers": 42,
        "sample_width": 90,
        "sample_height": 60,
        "sample_frames": 49,
        "patch_size": 2,
        "max_text_seq_length": _PIPELINE_TEXT_TOKENS,
        "use_rotary_positional_embeddings": True,
    },
    scheduler={  # the part of scheduler/scheduler_config.json of zai-org/CogVideoX-5b that gives the levels
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "snr_shift_scale": 1.0,
        **_SUPPORTED,
    },
)
