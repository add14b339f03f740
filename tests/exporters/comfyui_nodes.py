"""Signatures of ComfyUI's stock nodes, and a check of graphs against them as its server checks them.

Read on 2026-11-27 in nodes.py (Comfy-Org/ComfyUI @02217e36a45b), comfy_extras/nodes_custom_sampler.py
(@be91880bfd0d), comfy_extras/nodes_model_advanced.py (@691e82787be2), comfy_extras/nodes_flux.py, nodes_latent.py,
nodes_sd3.py, nodes_hunyuan.py, nodes_upscale_model.py and nodes_images.py (version 0.38). A file name is any
string: the server has its own list.
"""

from __future__ import annotations

import json
from typing import Any

INT, FLOAT, STRING, BOOLEAN, FILE = "INT", "FLOAT", "STRING", "BOOLEAN", "FILE"
SIDE = (INT, 16, 16384)
METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "bislerp")
OF_IMAGES = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
CROP = ("disabled", "center")
TYPES_OF_ONE = ("chroma", "lumina2", "qwen_image", "wan", "flux2", "sd3", "stable_diffusion", "ltxv", "pixart")
TYPES_OF_TWO = ("sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image")
WEIGHTS = ("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")
SAMPLERS = ("euler", "heun", "euler_ancestral", "dpmpp_2m", "res_multistep", "uni_pc", "deis", "lcm", "ddim")

NODES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "UNETLoader": ({"unet_name": FILE, "weight_dtype": WEIGHTS}, ("MODEL",)),
    "CLIPLoader": ({"clip_name": FILE, "type": TYPES_OF_ONE}, ("CLIP",)),
    "DualCLIPLoader": ({"clip_name1": FILE, "clip_name2": FILE, "type": TYPES_OF_TWO}, ("CLIP",)),
    "TripleCLIPLoader": ({"clip_name1": FILE, "clip_name2": FILE, "clip_name3": FILE}, ("CLIP",)),
    "VAELoader": ({"vae_name": FILE}, ("VAE",)),
    "LoraLoaderModelOnly": (
        {"model": "MODEL", "lora_name": FILE, "strength_model": (FLOAT, -100, 100)},
        ("MODEL",),
    ),
    "ModelSamplingAuraFlow": ({"model": "MODEL", "shift": (FLOAT, 0, 100)}, ("MODEL",)),
    "ModelNoiseScale": ({"model": "MODEL", "noise_scale": (FLOAT, 0, 64)}, ("MODEL",)),
    "CLIPTextEncode": ({"text": STRING, "clip": "CLIP"}, ("CONDITIONING",)),
    "FluxGuidance": ({"conditioning": "CONDITIONING", "guidance": (FLOAT, 0, 100)}, ("CONDITIONING",)),
    "BasicGuider": ({"model": "MODEL", "conditioning": "CONDITIONING"}, ("GUIDER",)),
    "CFGGuider": (
        {"model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "cfg": (FLOAT, 0, 100)},
        ("GUIDER",),
    ),
    "RandomNoise": ({"noise_seed": (INT, 0, 2**53 - 1)}, ("NOISE",)),
    "DisableNoise": ({}, ("NOISE",)),
    "KSamplerSelect": ({"sampler_name": SAMPLERS}, ("SAMPLER",)),
    "ManualSigmas": ({"sigmas": STRING}, ("SIGMAS",)),
    "SamplerCustomAdvanced": (
        {
            "noise": "NOISE",
            "guider": "GUIDER",
            "sampler": "SAMPLER",
            "sigmas": "SIGMAS",
            "latent_image": "LATENT",
        },
        ("LATENT", "LATENT"),
    ),
    "EmptySD3LatentImage": ({"width": SIDE, "height": SIDE, "batch_size": (INT, 1, 4096)}, ("LATENT",)),
    "EmptyFlux2LatentImage": ({"width": SIDE, "height": SIDE, "batch_size": (INT, 1, 4096)}, ("LATENT",)),
    "EmptyHunyuanLatentVideo": (
        {"width": SIDE, "height": SIDE, "length": (INT, 1, 16384), "batch_size": (INT, 1, 4096)},
        ("LATENT",),
    ),
    "LatentUpscale": (
        {"samples": "LATENT", "upscale_method": METHODS, "width": SIDE, "height": SIDE, "crop": CROP},
        ("LATENT",),
    ),
    "LatentUpscaleBy": (
        {"samples": "LATENT", "upscale_method": METHODS, "scale_by": (FLOAT, 0.01, 8)},
        ("LATENT",),
    ),
    "LatentAdd": ({"samples1": "LATENT", "samples2": "LATENT"}, ("LATENT",)),
    "LatentSubtract": ({"samples1": "LATENT", "samples2": "LATENT"}, ("LATENT",)),
    "LatentMultiply": ({"samples": "LATENT", "multiplier": (FLOAT, -10, 10)}, ("LATENT",)),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, ("IMAGE",)),
    "VAEEncode": ({"pixels": "IMAGE", "vae": "VAE"}, ("LATENT",)),
    "ImageScale": (
        {"image": "IMAGE", "upscale_method": OF_IMAGES, "width": SIDE, "height": SIDE, "crop": CROP},
        ("IMAGE",),
    ),
    "UpscaleModelLoader": ({"model_name": FILE}, ("UPSCALE_MODEL",)),
    "ImageUpscaleWithModel": ({"upscale_model": "UPSCALE_MODEL", "image": "IMAGE"}, ("IMAGE",)),
    "SaveImage": ({"images": "IMAGE", "filename_prefix": STRING}, ()),
    "SaveAnimatedWEBP": (
        {
            "images": "IMAGE",
            "filename_prefix": STRING,
            "fps": (FLOAT, 0.01, 1000),
            "lossless": BOOLEAN,
            "quality": (INT, 0, 100),
            "method": ("default", "fastest", "slowest"),
        },
        (),
    ),
}


def checked(text: str) -> dict[str, Any]:
    """Reads a graph and asserts what the server does: known nodes, inputs, ranges, types of links, an output."""
    graph: dict[str, Any] = json.loads(text)
    for number, node in graph.items():
        assert set(node) <= {"class_type", "inputs", "_meta"}
        wanted, _ = NODES[node["class_type"]]
        assert set(node["inputs"]) == set(wanted), (number, node["class_type"])
        for name, kind in wanted.items():
            _check(graph, node["inputs"][name], kind, f"{number} {node['class_type']}.{name}")
    assert sum(not NODES[node["class_type"]][1] for node in graph.values()) == 1
    return graph


def _check(graph: dict[str, Any], value: Any, kind: Any, where: str) -> None:
    if isinstance(kind, tuple) and kind[0] in (INT, FLOAT):
        assert type(value) in ((int,) if kind[0] == INT else (int, float)), where
        assert kind[1] <= value <= kind[2], where
    elif isinstance(kind, tuple):
        assert value in kind, where
    elif kind in (STRING, FILE):
        assert isinstance(value, str), where
    elif kind == BOOLEAN:
        assert isinstance(value, bool), where
    else:
        assert isinstance(value, list), where
        source, output = value
        assert NODES[graph[source]["class_type"]][1][output] == kind, where
