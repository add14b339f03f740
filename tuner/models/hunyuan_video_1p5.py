"""HunyuanVideo 1.5, text to video: diffusers' ``HunyuanVideo15Pipeline`` as a `FlowModel`.

Guidance is true, one pass after the other; its scale is that of the pipeline's guider. One network makes videos of
text and of images: latents of a first frame come beside the noisy ones, tokens of a reference image beside the
text, all of them zero here. A second text encoder reads what stands in quotation marks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.errors import UserError
from tuner.feature_cache import FeatureCache
from tuner.models._diffusers import empty_text
from tuner.models._parts import BYT5_GLYPH, QWEN_2P5_VL_7B_TEXT, autoencoder
from tuner.models._video import VideoBlueprint, VideoModel
from tuner.models.base import Conditioning, ReadConfig, Size

if TYPE_CHECKING:
    import torch

_PIPELINE_TEXT_TOKENS = 1000  # HunyuanVideo15Pipeline.tokenizer_max_length
_PIPELINE_QUOTED_TOKENS = 256  # HunyuanVideo15Pipeline.tokenizer_2_max_length
_PIPELINE_IMAGE_TOKENS = 729  # HunyuanVideo15Pipeline.vision_num_semantic_tokens
_PIPELINE_ASPECT = 9, 16  # HunyuanVideo15Pipeline.default_aspect_ratio, height first
_SUPPORTED = {
    "guidance_rescale": 0.0,
    "use_original_formulation": False,
    "start": 0.0,
    "stop": 1.0,
    "enabled": True,
}


class HunyuanVideo15Model(VideoModel):
    """A loaded HunyuanVideo 1.5 pipeline."""

    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes with Qwen2.5-VL, and quoted words with ByT5; see `PipelineModel.encode_text`."""
        dtype = (self.pipe.transformer or self.pipe.text_encoder).dtype  # text may come before the transformer
        tokens_BTD, mask_BT, quoted_BTD, quoted_mask_BT = self.pipe.encode_prompt(
            prompts, batch_size=len(prompts), dtype=dtype
        )
        return {"tokens": tokens_BTD, "mask": mask_BT, "quoted": quoted_BTD, "quoted_mask": quoted_mask_BT}


@dataclass(frozen=True, kw_only=True)
class HunyuanVideo15Blueprint(VideoBlueprint):
    """A model of the HunyuanVideo 1.5 family, without its weights."""

    pipeline_class = "HunyuanVideo15Pipeline"
    transformer_class = "HunyuanVideo15Transformer3DModel"
    model_class = HunyuanVideo15Model
    text_encoders = (QWEN_2P5_VL_7B_TEXT, BYT5_GLYPH)
    autoencoder = autoencoder("AutoencoderKLHunyuanVideo15")
    batched_guidance = False
    draws_float32 = False
    true_guidance = True

    @property
    def channels(self) -> int:
        """The network takes the noisy latents, those of a first frame and a mask, and returns the first alone."""
        return int(self.transformer["out_channels"])

    def forward(self, transformer: Any, x_BCFHW: torch.Tensor, sigma: float, text: Conditioning) -> torch.Tensor:
        """Calls the transformer without a first frame and a reference image; see `PipelineBlueprint.forward`."""
        import torch

        batch, channels, *shape = x_BCFHW.shape
        device, dtype = x_BCFHW.device, transformer.dtype
        no_frame = torch.zeros(batch, channels + 1, *shape, device=device, dtype=dtype)
        no_image = torch.zeros(
            batch, _PIPELINE_IMAGE_TOKENS, transformer.config.image_embed_dim, device=device, dtype=dtype
        )
        velocity: torch.Tensor = transformer(
            hidden_states=torch.cat([x_BCFHW.to(dtype), no_frame], dim=1),
            timestep=torch.full((batch,), 1000 * sigma, device=device, dtype=dtype),
            encoder_hidden_states=text["tokens"],
            encoder_attention_mask=text["mask"],
            encoder_hidden_states_2=text["quoted"],
            encoder_attention_mask_2=text["quoted_mask"],
            image_embeds=no_image,
            return_dict=False,
        )[0]
        return velocity.float()

    def meta_text(self, config: Any) -> Conditioning:
        """See `PipelineBlueprint.meta_text`."""
        return empty_text(
            tokens=(self.text_tokens, config.text_embed_dim),
            mask=(self.text_tokens,),
            quoted=(_PIPELINE_QUOTED_TOKENS, config.text_embed_2_dim),
            quoted_mask=(_PIPELINE_QUOTED_TOKENS,),
        )

    def meta_forward(self, size: Size, cache: FeatureCache | None = None) -> None:
        """Counts with all tokens unmasked, since masked ones cost the same; see `Blueprint.meta_forward`."""
        with _all_unmasked():
            super().meta_forward(size, cache)

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """See `PipelineBlueprint.described`."""
        from diffusers.pipelines.hunyuan_video1_5.image_processor import HunyuanVideo15ImageProcessor

        guider = read("guider/guider_config.json")
        for option, known in _SUPPORTED.items():
            if guider.get(option, known) != known:
                raise UserError(
                    f"Guider option {option}={guider[option]!r} is not supported; set it to {known!r}."
                )
        factor = vae.get("spatial_compression_ratio", 16)
        processor = HunyuanVideo15ImageProcessor(vae_scale_factor=factor)
        height, width = processor.calculate_default_height_width(
            *_PIPELINE_ASPECT, transformer.get("target_size", 640)
        )
        return {
            "height": height,
            "width": width,
            "multiple": transformer.get("patch_size", 1) * factor,
            "vae_factor": factor,
            "frame_factor": vae.get("temporal_compression_ratio", 4),
            "guidance": guider.get("guidance_scale", self.guidance),
        }


def _all_unmasked() -> contextlib.AbstractContextManager[Any]:
    """Lets the network run on meta tensors, whose values it cannot ask for.

    The network asks whether there is a reference image, and puts tokens that are masked behind those that are not.
    Neither changes the number of tokens. Inside the context there is no image, a mask picks all tokens, and its
    inverse none.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class AllUnmasked(TorchFunctionMode):
        def __torch_function__(
            self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            name = getattr(function, "__name__", "")
            if name == "__bool__" and args[0].is_meta:
                return True
            if name == "__getitem__" and isinstance(args[1], torch.Tensor) and args[1].is_meta:
                tensor, mask = args
                return tensor[:0] if getattr(mask, "picks_nothing", False) else tensor
            result = function(*args, **(kwargs or {}))
            if name == "__invert__":
                result.picks_nothing = True
            return result

    return AllUnmasked()


BLUEPRINT = HunyuanVideo15Blueprint(
    name="hunyuan-video-1.5",
    source="hunyuanvideo-community/HunyuanVideo-1.5-480p_t2v",
    license="Tencent Hunyuan Community License",
    height=480,
    width=848,
    frames=121,
    fps=24,
    multiple=16,
    vae_factor=16,
    frame_factor=4,
    steps=50,
    guidance=6.0,
    text_tokens=_PIPELINE_TEXT_TOKENS,
    # As scripts/convert_hunyuan_video1_5_to_diffusers.py of diffusers writes them for 480p_t2v, guidance included.
    transformer={
        "in_channels": 65,
        "out_channels": 32,
        "num_attention_heads": 16,
        "attention_head_dim": 128,
        "num_layers": 54,
        "num_refiner_layers": 2,
        "mlp_ratio": 4.0,
        "patch_size": 1,
        "patch_size_t": 1,
        "qk_norm": "rms_norm",
        "text_embed_dim": 3584,
        "text_embed_2_dim": 1472,
        "image_embed_dim": 1152,
        "rope_theta": 256.0,
        "rope_axes_dim": (16, 56, 56),
        "target_size": 640,
    },
    scheduler={"num_train_timesteps": 1000, "shift": 5.0},
)
