"""How ComfyUI loads the models that `tuner` knows: nodes, usual file names, and how each counts guidance.

Read in comfy/supported_models.py, nodes.py and ComfyUI's templates, versions of 2026-11-27.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Family:
    """The nodes of one model family.

    Attributes:
        clip_loader: The node that loads the text encoders.
        clip_type: Its ``type``; empty where it has none.
        clip: Usual file names of the text encoders, in the node's order.
        vae: Usual file name of the autoencoder.
        empty: The node that makes an empty latent.
        pixels: Pixels per latent pixel, as that node counts.
        guidance: ``input`` is an input of the network; ``true`` is a second pass at scales above 1; ``added`` is
            one at scales above 0, which ComfyUI counts from 1; ``rescaled`` keeps a norm, as its guiders do not.
        flux_sampling: Whether its sampling is ComfyUI's ``ModelSamplingFlux``, whose noise cannot be scaled.
        patches: Whether a latent pixel holds a patch of 2 x 2 pixels of our latents.
    """

    clip_loader: str = "CLIPLoader"
    clip_type: str
    clip: tuple[str, ...]
    vae: str
    empty: str = "EmptySD3LatentImage"
    pixels: int = 8
    guidance: Literal["input", "true", "added", "rescaled"]
    flux_sampling: bool = False
    patches: bool = False


_FLUX = Family(
    clip_loader="DualCLIPLoader",
    clip_type="flux",
    clip=("t5xxl_fp16.safetensors", "clip_l.safetensors"),
    vae="ae.safetensors",
    guidance="input",
    flux_sampling=True,
)

FAMILIES = {
    "FluxPipeline": _FLUX,
    "FluxPipeline in two passes": replace(_FLUX, guidance="true"),
    "Flux2Pipeline": Family(
        clip_type="flux2",
        clip=("mistral_3_small_flux2_bf16.safetensors",),
        vae="flux2-vae.safetensors",
        empty="EmptyFlux2LatentImage",
        pixels=16,
        guidance="input",
        flux_sampling=True,
        patches=True,
    ),
    "ChromaPipeline": Family(
        clip_type="chroma",
        clip=("t5xxl_fp16.safetensors",),
        vae="ae.safetensors",
        guidance="true",
        flux_sampling=True,
    ),
    "StableDiffusion3Pipeline": Family(
        clip_loader="TripleCLIPLoader",
        clip_type="",
        clip=("clip_l.safetensors", "clip_g.safetensors", "t5xxl_fp16.safetensors"),
        vae="sd3.5_vae.safetensors",
        guidance="true",
    ),
    "ZImagePipeline": Family(
        clip_type="lumina2", clip=("qwen_3_4b.safetensors",), vae="ae.safetensors", guidance="added"
    ),
    "QwenImagePipeline": Family(
        clip_type="qwen_image",
        clip=("qwen_2.5_vl_7b.safetensors",),
        vae="qwen_image_vae.safetensors",
        guidance="rescaled",
        flux_sampling=True,
    ),
    "WanPipeline": Family(
        clip_type="wan",
        clip=("umt5_xxl_fp16.safetensors",),
        vae="wan_2.1_vae.safetensors",
        empty="EmptyHunyuanLatentVideo",
        guidance="true",
    ),
    "HunyuanVideoPipeline": Family(
        clip_loader="DualCLIPLoader",
        clip_type="hunyuan_video",
        clip=("clip_l.safetensors", "llava_llama3_fp16.safetensors"),
        vae="hunyuan_video_vae_bf16.safetensors",
        empty="EmptyHunyuanLatentVideo",
        guidance="input",
    ),
}
