"""Runs a graph of ComfyUI's nodes on one of our models, written from the nodes' formulas.

What a node does was read on 2026-11-27 (versions in ``comfyui_nodes.py``): a flow's sampler starts at
``sigma noise + (1 - sigma) latent`` and divides by ``1 - sigma`` at its end; its second output is the last image
that was predicted; guidance mixes predicted images; ``RandomNoise`` draws float32 on the CPU; latents between
nodes are in the autoencoder's own scale, here FLUX.1's; Euler's and Heun's rules are those of Karras et al. (arXiv
2206.00364, Alg. 1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from tuner.models._packed import pack_2x2, unpack_2x2
from tuner.models._pipeline_model import PipelineModel

SCALE, SHIFT = 0.3611, 0.1159
_NUMBER = re.compile(r"[-+]?(?:\d*\.*\d+)")
_FLUX_SAMPLING = {"FluxPipeline", "Flux2Pipeline", "ChromaPipeline", "QwenImagePipeline"}


@dataclass(frozen=True)
class Model:
    network: Any
    flux_sampling: bool
    noise_scale: float = 1.0


@dataclass(frozen=True)
class Conditioning:
    text: str
    guidance: float | None = None


Denoise = Callable[[torch.Tensor, float], torch.Tensor]


class Interpreter:
    """Evaluates nodes on demand.

    Args:
        graph: Nodes by number.
        model: Whose networks the loaders load.
        networks: Networks by file name; by default the model's own for every name.
    """

    def __init__(self, graph: dict[str, Any], model: PipelineModel, networks: dict[str, Any] | None = None):
        self.graph, self.model, self.networks = graph, model, networks or {}
        self.known: dict[str, tuple[Any, ...]] = {}
        self.patches = model.blueprint.pipeline_class == "Flux2Pipeline"

    def latents(self) -> torch.Tensor:
        """Returns what the last ``VAEDecode`` decodes, as our latents."""
        decoded = next(node for node in reversed(self.graph.values()) if node["class_type"] == "VAEDecode")
        return self.ours(self.inward(self.value(decoded["inputs"]["samples"])))

    def value(self, given: Any) -> Any:
        """Follows a link, or returns a value as it is."""
        if not isinstance(given, list):
            return given
        number, output = given
        if number not in self.known:
            node = self.graph[number]
            inputs = {name: self.value(one) for name, one in node["inputs"].items()}
            self.known[number] = getattr(self, node["class_type"])(**inputs)
        return self.known[number][output]

    def inward(self, raw: torch.Tensor) -> torch.Tensor:
        return raw if not raw.any() else (raw - SHIFT) * SCALE

    def ours(self, x: torch.Tensor) -> torch.Tensor:
        if not self.patches:
            return x
        return unpack_2x2(x.flatten(2).mT, 2 * x.shape[-2], 2 * x.shape[-1])

    def theirs(self, x: torch.Tensor) -> torch.Tensor:
        return pack_2x2(x).mT.unflatten(2, (x.shape[-2] // 2, x.shape[-1] // 2)) if self.patches else x

    def UNETLoader(self, unet_name: str, weight_dtype: str) -> tuple[Model]:
        network = self.networks.get(unet_name, self.model.network(1.0))
        return (Model(network, self.model.blueprint.pipeline_class in _FLUX_SAMPLING),)

    def LoraLoaderModelOnly(self, model: Model, lora_name: str, strength_model: float) -> tuple[Model]:
        return (model,)  # the test has applied it

    def ModelSamplingAuraFlow(self, model: Model, shift: float) -> tuple[Model]:
        assert shift == 1
        return (replace(model, flux_sampling=False),)

    def ModelNoiseScale(self, model: Model, noise_scale: float) -> tuple[Model]:
        assert not model.flux_sampling, "ModelSamplingFlux has no noise scale"
        return (replace(model, noise_scale=noise_scale),)

    def CLIPLoader(self, **names: str) -> tuple[None]:
        return (None,)

    DualCLIPLoader = TripleCLIPLoader = VAELoader = CLIPLoader

    def CLIPTextEncode(self, text: str, clip: None) -> tuple[Conditioning]:
        return (Conditioning(text),)

    def FluxGuidance(self, conditioning: Conditioning, guidance: float) -> tuple[Conditioning]:
        return (replace(conditioning, guidance=guidance),)

    def _denoised(self, model: Model, given: Conditioning, negative: bool) -> Denoise:
        known = self.model.blueprint
        if given.guidance is not None:
            known = replace(known, guidance=given.guidance)
        text = self.model.encode_text([given.text], negative=negative)

        def denoised(x: torch.Tensor, sigma: float) -> torch.Tensor:
            velocity = known.forward(model.network, self.ours(x), sigma, text)
            return x - sigma * self.theirs(velocity)

        return denoised

    def BasicGuider(self, model: Model, conditioning: Conditioning) -> tuple[tuple[Model, Denoise]]:
        return ((model, self._denoised(model, conditioning, negative=False)),)

    def CFGGuider(
        self, model: Model, positive: Conditioning, negative: Conditioning, cfg: float
    ) -> tuple[tuple[Model, Denoise]]:
        towards = self._denoised(model, positive, negative=False)
        away = self._denoised(model, negative, negative=True)

        def guided(x: torch.Tensor, sigma: float) -> torch.Tensor:
            if cfg == 1:
                return towards(x, sigma)
            without = away(x, sigma)
            return without + cfg * (towards(x, sigma) - without)

        return ((model, guided),)

    def RandomNoise(self, noise_seed: int) -> tuple[Callable[[torch.Tensor], torch.Tensor]]:
        def draw(latent: torch.Tensor) -> torch.Tensor:
            return torch.randn(latent.shape, generator=torch.Generator("cpu").manual_seed(noise_seed))

        return (draw,)

    def DisableNoise(self) -> tuple[Callable[[torch.Tensor], torch.Tensor]]:
        return (torch.zeros_like,)

    def KSamplerSelect(self, sampler_name: str) -> tuple[Callable[..., torch.Tensor]]:
        return ({"euler": _euler, "heun": _heun}[sampler_name],)

    def ManualSigmas(self, sigmas: str) -> tuple[list[float]]:
        return (torch.tensor([float(number) for number in _NUMBER.findall(sigmas)]).tolist(),)

    def SamplerCustomAdvanced(
        self,
        noise: Callable[[torch.Tensor], torch.Tensor],
        guider: tuple[Model, Denoise],
        sampler: Callable[..., torch.Tensor],
        sigmas: list[float],
        latent_image: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        model, denoised = guider
        latent = self.inward(latent_image)
        x = sigmas[0] * model.noise_scale * noise(latent) + (1 - sigmas[0]) * latent
        last: list[torch.Tensor] = []

        def noted(x: torch.Tensor, sigma: float) -> torch.Tensor:
            last[:] = [denoised(x, sigma)]
            return last[0]

        x = sampler(noted, x, sigmas) / (1 - sigmas[-1])
        return x / SCALE + SHIFT, last[0] / SCALE + SHIFT

    def LatentAdd(self, samples1: torch.Tensor, samples2: torch.Tensor) -> tuple[torch.Tensor]:
        return (samples1 + samples2,)

    def LatentSubtract(self, samples1: torch.Tensor, samples2: torch.Tensor) -> tuple[torch.Tensor]:
        return (samples1 - samples2,)

    def LatentMultiply(self, samples: torch.Tensor, multiplier: float) -> tuple[torch.Tensor]:
        return (samples * multiplier,)

    def EmptySD3LatentImage(self, width: int, height: int, batch_size: int) -> tuple[torch.Tensor]:
        channels = self.model.blueprint.channels
        return (torch.zeros(batch_size, channels, height // 8, width // 8),)

    def EmptyFlux2LatentImage(self, width: int, height: int, batch_size: int) -> tuple[torch.Tensor]:
        channels = 4 * self.model.blueprint.channels
        return (torch.zeros(batch_size, channels, height // 16, width // 16),)

    def EmptyHunyuanLatentVideo(
        self, width: int, height: int, length: int, batch_size: int
    ) -> tuple[torch.Tensor]:
        channels = self.model.blueprint.channels
        return (torch.zeros(batch_size, channels, (length - 1) // 4 + 1, height // 8, width // 8),)

    def LatentUpscaleBy(self, samples: torch.Tensor, upscale_method: str, scale_by: float) -> tuple[torch.Tensor]:
        size = [round(side * scale_by) for side in samples.shape[-2:]]
        return (_resized(samples, size, upscale_method),)

    def LatentUpscale(
        self, samples: torch.Tensor, upscale_method: str, width: int, height: int, crop: str
    ) -> tuple[torch.Tensor]:
        return (_resized(samples, [max(64, height) // 8, max(64, width) // 8], upscale_method),)


def _resized(samples: torch.Tensor, size: list[int], method: str) -> torch.Tensor:
    frames = samples.flatten(1, 2) if samples.ndim == 5 else samples
    return F.interpolate(frames, size=size, mode=method).reshape(*samples.shape[:-2], *size)


def _euler(denoised: Denoise, x: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    for sigma, following in pairwise(sigmas):
        x = x + (following - sigma) * (x - denoised(x, sigma)) / sigma
    return x


def _heun(denoised: Denoise, x: torch.Tensor, sigmas: Sequence[float]) -> torch.Tensor:
    for sigma, following in pairwise(sigmas):
        slope = (x - denoised(x, sigma)) / sigma
        ahead = x + (following - sigma) * slope
        if following > 0:
            slope = (slope + (ahead - denoised(ahead, following)) / following) / 2
        x = x + (following - sigma) * slope
    return x
