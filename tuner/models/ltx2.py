"""LTX-2 (arXiv 2601.03233): diffusers' ``LTX2Pipeline`` as a `FlowModel` that draws video and sound together.

Guidance is the pipeline's, on clean predictions, for picture and sound apart: away from the negative prompt, away
from a pass in which one block leaves out its self-attention (arXiv 2411.18664), and away from a pass in which
picture and sound do not see each other; the result is brought back towards the spread of the prompt's own
prediction (arXiv 2305.08891, Eq. 15-16). At a guidance scale of 1 there is one pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.errors import UserError
from tuner.feature_cache import FeatureCache, PyramidAttentionBroadcast
from tuner.models._caching import named_call
from tuner.models._diffusers import empty_text
from tuner.models._parts import GEMMA_3_12B, LTX2_CONNECTORS, autoencoder
from tuner.models._pipeline_model import with_and_without
from tuner.models._sound import SoundBlueprint, SoundModel
from tuner.models.base import Conditioning, ReadConfig, Size, Sound

if TYPE_CHECKING:
    import torch

_PIPELINE_TEXT_TOKENS = 1024  # LTX2Pipeline's default max_sequence_length
_PIPELINE_MULTIPLE = 32  # what LTX2Pipeline wants heights and widths to be multiples of
_SPECTRA_PER_MOMENT = 4  # temporal_compression_ratio of AutoencoderKLLTX2Audio, which no configuration states
_SOUND_GUIDANCE = 7.0  # the pipeline's default audio_guidance_scale
_PERTURBED_GUIDANCE = 1.0  # stg_scale and audio_stg_scale
_ISOLATED_GUIDANCE = 3.0  # modality_scale and audio_modality_scale
_RESCALE = 0.7  # guidance_rescale and audio_guidance_rescale


class LTX2Model(SoundModel):
    """A loaded LTX-2 pipeline."""

    blueprint: LTX2Blueprint

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with Gemma, whose states two connectors make the picture's and the sound's text of."""
        tokenizer = self.pipe.tokenizer
        found = tokenizer.padding_side, tokenizer.pad_token
        try:
            states_BTD, mask_BT, _, _ = self.pipe.encode_prompt(
                prompts, do_classifier_free_guidance=False, max_sequence_length=self.blueprint.text_tokens
            )
        finally:
            tokenizer.padding_side, tokenizer.pad_token = found  # which the pipeline sets
        tokens_BTD, sound_tokens_BTD, mask_BT = self.pipe.connectors(states_BTD, mask_BT, padding_side="left")
        return {"tokens": tokens_BTD, "sound_tokens": sound_tokens_BTD, "mask": mask_BT}

    def velocity(self, x_BCFHW: torch.Tensor, sigma: float, conditioning: Conditioning) -> torch.Tensor:
        """Makes up to four passes and combines them; see `FlowModel.velocity`."""
        known = self.called(sigma)
        assert isinstance(known, LTX2Blueprint)  # the guidance alone is another
        found = known.predictions(self.network(sigma), x_BCFHW, sigma, *with_and_without(conditioning))
        if known.passes == 1:
            return found["towards"]
        parts = {name: known.parted(x_BCFHW - sigma * velocity) for name, velocity in found.items()}
        picture_BCFHW, sound_BLD = (
            _guided({name: both[part] for name, both in parts.items()}, scale)
            for part, scale in enumerate((known.scale(sigma), _SOUND_GUIDANCE))
        )
        return (x_BCFHW - known.joined(picture_BCFHW, sound_BLD)) / sigma

    def sounds(self, x_BCFHW: torch.Tensor) -> list[Sound]:
        """Decodes the sound to spectra and those to waveforms; see `FlowModel.sounds`."""
        import torch

        pipe, (moments, values) = self.pipe, self.blueprint.sound_shape
        vae = pipe.audio_vae
        with torch.no_grad():
            sound_BLD = pipe._denormalize_audio_latents(
                self.blueprint.parted(x_BCFHW)[1], vae.latents_mean, vae.latents_std
            )
            bins = values // self.blueprint.sound_channels
            latents_BCLM = pipe._unpack_audio_latents(sound_BLD, moments, num_mel_bins=bins)
            waves_BCT = pipe.vocoder(vae.decode(latents_BCLM.to(vae.dtype), return_dict=False)[0])
        return [Sound(wave_CT.float().cpu(), pipe.vocoder.config.output_sampling_rate) for wave_CT in waves_BCT]

    def unscaled(self, x_BCFHW: torch.Tensor) -> torch.Tensor:
        """Undoes the normalisation of every channel, which is stored with the VAE's weights."""
        vae = self.pipe.vae
        latents_BCFHW: torch.Tensor = self.pipe._denormalize_latents(
            x_BCFHW, vae.latents_mean, vae.latents_std, vae.config.scaling_factor
        )
        return latents_BCFHW


@dataclass(frozen=True, kw_only=True)
class LTX2Blueprint(SoundBlueprint):
    """A model of the LTX-2 family, without its weights.

    Attributes:
        perturbed_block: The block whose self-attention one guidance pass skips.
    """

    pipeline_class = "LTX2Pipeline"
    transformer_class = "LTX2VideoTransformer3DModel"
    model_class = LTX2Model
    text_encoders = (GEMMA_3_12B, LTX2_CONNECTORS)
    autoencoder = autoencoder("AutoencoderKLLTX2Video")
    true_guidance = True

    perturbed_block: int

    @property
    def sound_values(self) -> int:
        """The network sees a moment of the sound as one token; see `SoundBlueprint.sound_values`."""
        return int(self.transformer["audio_in_channels"])

    def tokens(self, size: Size) -> int:
        """Counts the picture's tokens, one per latent pixel, which decide the shift."""
        return math.prod(self.picture_shape(size)[1:])

    @property
    def perturbs(self) -> bool:
        """Whether the network can skip a self-attention; where not, that pass would equal the prompt's own."""
        return bool(self.transformer.get("perturbed_attn"))

    @property
    def passes(self) -> int:
        """Passes with the prompt, with the negative one, isolated, and perturbed; see `Blueprint.passes`."""
        return 1 if super().passes == 1 else 3 + self.perturbs

    @property
    def counted_passes(self) -> int:
        """All of them, since they differ in cost; see `Blueprint.counted_passes`."""
        return self.passes

    def check_cache(self, cache: FeatureCache) -> None:
        """Refuses a cache that knows no guidance passes apart; see `PipelineBlueprint.check_cache`."""
        if isinstance(cache, PyramidAttentionBroadcast) and self.passes > 1:
            raise UserError(
                f"Cache {cache.kind!r} would mix the {self.passes} guidance passes of {self.name}; use another "
                "kind."
            )

    def forward(
        self,
        transformer: Any,
        x_BCFHW: torch.Tensor,
        sigma: float,
        text: Conditioning,
        leaving_out: Mapping[str, Any] | None = None,
    ) -> torch.Tensor:
        """Calls the transformer, whose timestep is 1000 sigma; see `PipelineBlueprint.forward`.

        Args:
            transformer: The network.
            x_BCFHW: Picture and sound.
            sigma: Noise level of both.
            text: Conditioning.
            leaving_out: Arguments of the network that tell it to leave something out.
        """
        import torch

        picture_BCFHW, sound_BLD = self.parted(x_BCFHW)
        batch, dtype = len(x_BCFHW), transformer.dtype
        frames, height, width = picture_BCFHW.shape[2:]
        timestep_B = torch.full((batch,), 1000 * sigma, device=x_BCFHW.device, dtype=torch.float32)
        picture_BTC, sound_BLD = transformer(
            hidden_states=picture_BCFHW.flatten(2).transpose(1, 2).to(dtype),
            audio_hidden_states=sound_BLD.to(dtype),
            encoder_hidden_states=text["tokens"].to(dtype),
            audio_encoder_hidden_states=text["sound_tokens"].to(dtype),
            timestep=timestep_B,
            sigma=timestep_B,
            encoder_attention_mask=text["mask"],
            audio_encoder_attention_mask=text["mask"],
            num_frames=frames,
            height=height,
            width=width,
            fps=self.fps,
            audio_num_frames=self.sound_shape[0],
            return_dict=False,
            **(leaving_out or {}),
        )
        picture_BCFHW = picture_BTC.transpose(1, 2).unflatten(2, (frames, height, width))
        return self.joined(picture_BCFHW.float(), sound_BLD.float())

    def predictions(
        self, transformer: Any, x_BCFHW: torch.Tensor, sigma: float, text: Conditioning, negative: Conditioning
    ) -> dict[str, torch.Tensor]:
        """Makes all passes of one velocity, as the pipeline does; returns their velocities by name.

        Args:
            transformer: The network.
            x_BCFHW: Picture and sound.
            sigma: Noise level of both.
            text: Conditioning on the prompts.
            negative: Conditioning on the negative prompt; unused where there is one pass.
        """
        import torch

        if self.passes == 1:
            with named_call(transformer, "cond"):
                return {"towards": self.forward(transformer, x_BCFHW, sigma, text)}
        both = {name: torch.cat([negative[name], text[name]]) for name in text}
        with named_call(transformer, "cond_uncond"):
            away, towards = self.forward(transformer, torch.cat([x_BCFHW, x_BCFHW]), sigma, both).chunk(2)
        found = {"towards": towards, "away": away}
        if self.perturbs:
            # The network looks at the mask's values, of which there are none on the meta device.
            mask_B = torch.zeros(len(x_BCFHW), device="cpu")
            skipping = {"spatio_temporal_guidance_blocks": [self.perturbed_block], "perturbation_mask": mask_B}
            with named_call(transformer, "uncond_stg"):
                found["perturbed"] = self.forward(transformer, x_BCFHW, sigma, text, skipping)
        with named_call(transformer, "uncond_modality"):
            found["isolated"] = self.forward(transformer, x_BCFHW, sigma, text, {"isolate_modalities": True})
        return found

    def meta_passes(self, transformer: Any, x_BCFHW: torch.Tensor, text: Conditioning) -> None:
        """Makes all passes; see `PipelineBlueprint.meta_passes`."""
        self.predictions(transformer, x_BCFHW, 1.0, text, text)

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        widths = config.cross_attention_dim, config.audio_cross_attention_dim
        if config.use_prompt_embeddings:  # LTX-2.0 projects the connectors' text inside the network
            widths = config.caption_channels, config.caption_channels
        tokens, sound_tokens = ((self.text_tokens, width) for width in widths)
        return empty_text(tokens=tokens, sound_tokens=sound_tokens, mask=(self.text_tokens,))

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """See `PipelineBlueprint.described`."""
        sound = read("audio_vae/config.json")
        spectra = sound.get("sample_rate", 16000) / sound.get("mel_hop_length", 160)  # per second
        return {
            "multiple": _PIPELINE_MULTIPLE,
            "vae_factor": vae.get("spatial_compression_ratio", 32),
            "frame_factor": vae.get("temporal_compression_ratio", 8),
            "sound_rate": spectra / _SPECTRA_PER_MOMENT,
            "sound_channels": sound.get("latent_channels", 8),
        }


def _guided(clean: Mapping[str, torch.Tensor], scale: float) -> torch.Tensor:
    """Combines the clean predictions of all passes, as ``LTX2Pipeline`` does.

    Args:
        clean: What each pass predicts the picture, or the sound, to be.
        scale: Guidance scale away from the negative prompt.
    """
    towards = clean["towards"]
    guided = towards + (scale - 1) * (towards - clean["away"])
    if "perturbed" in clean:
        guided = guided + _PERTURBED_GUIDANCE * (towards - clean["perturbed"])
    guided = guided + (_ISOLATED_GUIDANCE - 1) * (towards - clean["isolated"])
    every = tuple(range(1, towards.ndim))
    spread = towards.std(dim=every, keepdim=True) / guided.std(dim=every, keepdim=True)
    return guided * (_RESCALE * spread + 1 - _RESCALE)


BLUEPRINT = LTX2Blueprint(
    name="ltx2",
    source="Lightricks/LTX-2",
    license="LTX-2 Community License",
    height=512,
    width=768,
    frames=121,
    fps=24,
    multiple=_PIPELINE_MULTIPLE,
    vae_factor=32,
    frame_factor=8,
    sound_rate=25.0,
    sound_channels=8,
    perturbed_block=28,
    steps=30,
    guidance=3.0,
    text_tokens=_PIPELINE_TEXT_TOKENS,
    transformer={  # transformer/config.json of Lightricks/LTX-2
        "in_channels": 128,
        "out_channels": 128,
        "patch_size": 1,
        "patch_size_t": 1,
        "num_attention_heads": 32,
        "attention_head_dim": 128,
        "cross_attention_dim": 4096,
        "vae_scale_factors": (8, 32, 32),
        "audio_in_channels": 128,
        "audio_out_channels": 128,
        "audio_num_attention_heads": 32,
        "audio_attention_head_dim": 64,
        "audio_cross_attention_dim": 2048,
        "num_layers": 48,
        "caption_channels": 3840,
        "rope_type": "split",
    },
    scheduler={  # scheduler/scheduler_config.json of Lightricks/LTX-2
        "num_train_timesteps": 1000,
        "use_dynamic_shifting": True,
        "base_shift": 0.95,
        "max_shift": 2.05,
        "base_image_seq_len": 1024,
        "max_image_seq_len": 4096,
        "shift_terminal": 0.1,
    },
)
