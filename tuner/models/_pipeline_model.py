"""What all loaded diffusers pipelines share: text, noise, both passes of guidance, decoding."""

from __future__ import annotations

import contextlib
import gc
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuner.feature_cache import FeatureCache
from tuner.models._caching import caching, named_call
from tuner.models._diffusers import PipelineBlueprint
from tuner.models._loading import compile_network
from tuner.models.base import Conditioning, FlowModel, Item, Size
from tuner.schedule import Stage

if TYPE_CHECKING:
    import torch
    from PIL import Image

_NEGATIVE = "negative_"


class PipelineModel(FlowModel):
    """A loaded diffusers pipeline.

    Args:
        pipe: The pipeline; not changed, but by ``free_text_encoders`` and ``make_room``.
        blueprint: Its blueprint.
    """

    blueprint: PipelineBlueprint

    def __init__(self, pipe: Any, blueprint: PipelineBlueprint):
        self.pipe = pipe
        self.blueprint = blueprint
        self.sigma = 1.0
        """Noise level of the velocity that is being computed."""
        self.stage: Stage | None = None
        """The stage whose guidance is in force, if it names any."""
        self.output_type = "pil"
        """What ``decode`` returns: ``pil``, ``np`` or ``pt``, as diffusers' processors name them."""

    @property
    def device(self) -> str:
        """That of the pipeline's inputs; offloaded weights may wait elsewhere; see `FlowModel.device`."""
        return str(self.pipe._execution_device.type)

    @property
    def runtime(self) -> str:
        """That of the network as it was loaded; see `FlowModel.runtime`."""
        return f"{self.device} {str(self.network(1.0).dtype).removeprefix('torch.')}"

    @abstractmethod
    def encode_text(self, prompts: list[str], negative: bool) -> dict[str, torch.Tensor]:
        """Encodes prompts with the pipeline's own encoders; ``tokens`` holds the text tokens (B, T, D).

        Args:
            prompts: B prompts.
            negative: Whether they are negative prompts, where the pipeline treats those differently.
        """

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Encodes the prompts, and the negative prompt as often where guidance needs it; see `FlowModel`."""
        import torch

        with torch.no_grad():
            text = self.encode_text(list(prompts), negative=False)
            if self.blueprint.passes == 1:
                return text
            negative = self.encode_text([self.blueprint.negative_prompt] * len(prompts), negative=True)
        return text | {_NEGATIVE + name: rows for name, rows in negative.items()}

    def compile(self) -> None:
        """Compiles the network of every noise level; see `FlowModel.compile`."""
        for network in dict.fromkeys((self.network(1.0), self.network(0.0))):
            compile_network(network)

    def free_text_encoders(self) -> None:
        """Takes the text encoders out of the pipeline; see `FlowModel.free_text_encoders`."""
        import torch

        for name, component in self.pipe.components.items():
            if name.startswith("text_encoder") and component is not None:
                self.pipe.register_modules(**{name: None})
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.when_encoded is not None:
            self.pipe, self.when_encoded = self.when_encoded(), None

    def make_room(self) -> bool:
        """Lets components leave the device while others run; see `FlowModel.make_room`."""
        if not self.may_offload:
            return False
        self.pipe.enable_model_cpu_offload(device=self.device)
        self.may_offload = False
        return True

    def noise(self, size: Size, seeds: Sequence[int]) -> torch.Tensor:
        """Draws on the CPU, so that an image's noise is the same on every device; see `FlowModel.noise`."""
        import torch

        rows = [self.draw(size, torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
        return torch.cat(rows).to(self.pipe._execution_device, torch.float32)

    def draw(self, size: Size, generator: torch.Generator) -> torch.Tensor:
        """Draws the noise of one image, (1, C, h, w), in the shape and precision in which the pipeline does."""
        import torch

        shape = (1, *self.blueprint.latent_shape(size))
        dtype = torch.float32 if self.blueprint.draws_float32 else self.network(1.0).dtype
        return torch.randn(shape, generator=generator, dtype=dtype)

    def velocity(self, x_BCHW: torch.Tensor, sigma: float, conditioning: Conditioning) -> torch.Tensor:
        """Calls the network once, or twice where there is a negative prompt; see `FlowModel.velocity`."""
        import torch

        known = self.called(sigma)
        network, asked = self.network(sigma), known.asked(sigma)

        def call(cached_as: str, x_BCHW: torch.Tensor, text: Conditioning) -> torch.Tensor:
            with named_call(network, cached_as):
                return known.forward(network, x_BCHW, asked, text)

        text, negative = with_and_without(conditioning)
        if known.passes == 1:
            return call("cond", x_BCHW, text)
        if self.blueprint.batched_guidance:
            both = {name: torch.cat([negative[name], text[name]]) for name in text}
            away, towards = call("cond_uncond", torch.cat([x_BCHW, x_BCHW]), both).chunk(2)
        else:
            towards, away = call("cond", x_BCHW, text), call("uncond", x_BCHW, negative)
        return self.guided(towards, away, known.scale(sigma))

    def called(self, sigma: float) -> PipelineBlueprint:
        """Returns the blueprint with the guidance that is in force, and notes the noise level of the call."""
        self.sigma = sigma
        return self.blueprint if self.stage is None else self.blueprint.called(self.stage, sigma)

    @contextlib.contextmanager
    def guiding(self, stage: Stage) -> Iterator[None]:
        """Puts the guidance of a stage in force; see `FlowModel.guiding`."""
        self.stage = stage
        try:
            yield
        finally:
            self.stage = None

    def network(self, sigma: float) -> Any:
        """Returns the network that is called at a noise level."""
        return getattr(self.pipe, self.blueprint.denoiser)

    def cached(self, cache: FeatureCache, sigmas: Sequence[float]) -> contextlib.AbstractContextManager[None]:
        """Lays the cache over the pipeline's network and takes it away after the context; see `FlowModel`."""
        self.blueprint.check_cache(cache)
        return caching(self.network(1.0), cache, sigmas, lambda: self.sigma)

    def guided(self, towards_BCHW: torch.Tensor, away_BCHW: torch.Tensor, scale: float) -> torch.Tensor:
        """Combines the velocities of the prompt and of the negative prompt (arXiv 2207.12598, Eq. 6)."""
        return away_BCHW + scale * (towards_BCHW - away_BCHW)

    def decode(self, x_BCHW: torch.Tensor) -> Sequence[Item]:
        """Undoes the VAE's scaling and decodes, as the pipeline does; see `FlowModel.decode`."""
        import torch

        vae = self.pipe.vae
        with torch.no_grad():
            pixels = self.pixels(vae.decode(self.unscaled(x_BCHW).to(vae.dtype), return_dict=False)[0])
        images: list[Image.Image] = self.pipe.image_processor.postprocess(pixels, output_type=self.output_type)
        return images

    def unscaled(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Turns latents as the network sees them into latents as the VAE does."""
        config = self.pipe.vae.config
        scaling: float = config.scaling_factor
        shift: float = config.get("shift_factor") or 0.0
        return x_BCHW / scaling + shift

    def pixels(self, decoded: torch.Tensor) -> torch.Tensor:
        """Turns what the VAE returns into images (B, 3, H, W)."""
        return decoded


def with_and_without(conditioning: Conditioning) -> tuple[Conditioning, Conditioning]:
    """Parts what ``encode`` returned into the prompts' and the negative prompt's; the latter may be empty."""
    text = {name: rows for name, rows in conditioning.items() if not name.startswith(_NEGATIVE)}
    negative = {name.removeprefix(_NEGATIVE): rows for name, rows in conditioning.items() if name not in text}
    return text, negative


def unnormalized(x: torch.Tensor, config: Mapping[str, Any]) -> torch.Tensor:
    """Undoes the normalisation of every channel that a VAE's configuration has mean and deviation of.

    Args:
        x: Latents (B, C, ...).
        config: The VAE's, with ``latents_mean`` and ``latents_std``.
    """
    channelwise = -1, *[1] * (x.ndim - 2)
    mean, std = (x.new_tensor(config[name]).view(channelwise) for name in ("latents_mean", "latents_std"))
    return x * std + mean
