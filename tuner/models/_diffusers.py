"""What all families of diffusers pipelines share: loading, configurations, noise, guidance, decoding.

A family is one `PipelineBlueprint` and one `PipelineModel`. The network's call is written once, in
``PipelineBlueprint.forward``; sampling gives it the loaded transformer and counting one on meta tensors, so that
the price of a schedule is the cost of its run.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from tuner.errors import UserError
from tuner.feature_cache import FeatureCache, PyramidAttentionBroadcast
from tuner.models._caching import caching, named_call
from tuner.models._flow_match import flow_match_sigmas, linear_mu
from tuner.models._loading import load_pipeline
from tuner.models._options import ModelOptions
from tuner.models.base import Blueprint, Conditioning, FlowModel, Item, ReadConfig, Size

if TYPE_CHECKING:
    import torch
    from PIL import Image

_NEGATIVE = "negative_"
_DEFAULT_OPTIONS = ModelOptions()


@dataclass(frozen=True, kw_only=True)
class PipelineBlueprint(Blueprint):
    """A model that runs in a diffusers pipeline, without its weights.

    Attributes:
        vae_factor: Pixels per latent pixel, along height and width.
    """

    transformer_class: ClassVar[str]
    model_class: ClassVar[type[PipelineModel]]
    true_guidance: ClassVar[bool] = False
    """Whether the guidance scale means a second pass with the negative prompt, not an input of the network."""
    no_guidance: ClassVar[float] = 1.0
    """The guidance scale at which, and below which, the pipeline makes no second pass."""

    vae_factor: int

    @abstractmethod
    def forward(self, transformer: Any, x_BCHW: torch.Tensor, sigma: float, text: Conditioning) -> torch.Tensor:
        """Calls the network once and returns the velocity (B, C, h, w), float32.

        Args:
            transformer: The loaded network, or one on the meta device.
            x_BCHW: Spatial latents; packing them is this method's part.
            sigma: Noise level.
            text: What ``PipelineModel.encode_text`` returned, or ``meta_text``.
        """

    @abstractmethod
    def meta_text(self, config: Any) -> Conditioning:
        """Returns one row of conditioning with the network's shapes; called inside ``torch.device("meta")``.

        Args:
            config: The transformer's configuration with all its defaults.
        """

    @abstractmethod
    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """Returns the fields that a saved configuration decides: sizes, ``guidance``, ``text_tokens``."""

    @property
    def channels(self) -> int:
        """Channels of the spatial latents."""
        return int(self.transformer["in_channels"])

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        """Returns the shape of one image's spatial latents, (C, h, w)."""
        return self.channels, size[0] // self.vae_factor, size[1] // self.vae_factor

    def tokens(self, size: Size) -> int:
        """Counts the image tokens that the network attends to."""
        return size[0] * size[1] // self.multiple**2

    def mu(self, steps: int, size: Size) -> float:
        """Returns the log of the shift that the pipeline computes for a size; see `Blueprint.sigmas`."""
        return linear_mu(self.scheduler, self.tokens(size))

    def sigmas(self, steps: int, size: Size) -> tuple[float, ...]:
        """Returns the uniform, shifted levels of a flow-matching pipeline; see `Blueprint.sigmas`."""
        return flow_match_sigmas(self.scheduler, steps, self.mu(steps, size))

    @property
    def passes(self) -> int:
        """Two where there is a pass with the negative prompt; see `Blueprint.passes`."""
        return 2 if self.true_guidance and (self.guidance or 0) > self.no_guidance else 1

    def check_cache(self, cache: FeatureCache) -> None:
        """Refuses a feature cache that would be wrong for this model.

        Raises:
            UserError: If it would take the features of one guidance pass for those of the other.
        """
        mixed = self.passes > 1 and not self.model_class.batched_guidance
        if isinstance(cache, PyramidAttentionBroadcast) and mixed:
            raise UserError(
                f"Cache {cache.kind!r} would mix the two guidance passes of {self.name}, which run one after the "
                "other; use another kind."
            )

    def meta_forward(self, size: Size, cache: FeatureCache | None = None) -> None:
        """Builds the transformer from its configuration on the meta device and calls it; see `Blueprint`."""
        import diffusers
        import torch

        if cache:
            self.check_cache(cache)
        with torch.device("meta"), torch.no_grad():
            transformer = getattr(diffusers, self.transformer_class).from_config(dict(self.transformer))
            latents, text = torch.empty(1, *self.latent_shape(size)), self.meta_text(transformer.config)
            if cache is None:
                self.forward(transformer, latents, 1.0, text)
                return
            with caching(transformer, cache, [1.0, 1.0], lambda: 1.0), named_call(transformer, "cond"):
                self.forward(transformer, latents, 1.0, text)
                self.forward(transformer, latents, 1.0, text)

    def reconfigured(self, source: str, read: ReadConfig) -> PipelineBlueprint:
        """Reads what a saved or loaded pipeline's configuration says; steps and guidance stay this model's."""
        transformer, vae = read(f"{self.denoiser}/config.json"), read("vae/config.json")
        return replace(
            self,
            name=source,
            source=source,
            license="see the model's own card",
            transformer=transformer,
            scheduler=read("scheduler/scheduler_config.json"),
            scorers=None,
            **self.described(transformer, vae, read),
        )

    def wrap(self, pipe: Any) -> PipelineModel:
        """Wraps a loaded pipeline, which is not changed."""
        if getattr(getattr(pipe, self.denoiser), "is_cache_enabled", False):
            raise UserError(
                f"The {type(pipe).__name__} has a feature cache of its own, which does not outlive a change of "
                f"size; call disable_cache() on its {self.denoiser} and name the cache in the schedule."
            )
        return self.model_class(pipe, self)

    def load(
        self, device: str | None = None, dtype: str | None = None, options: ModelOptions = _DEFAULT_OPTIONS
    ) -> FlowModel:
        """Loads the pipeline from a hub id or folder; see `Blueprint.load`."""
        import torch

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or options.dtype or ("float32" if device == "cpu" else "bfloat16")
        model = self.wrap(load_pipeline(self, device, dtype, options))
        if options.compile:
            for network in dict.fromkeys((model.network(1.0), model.network(0.0))):
                compile_network(network)
        return model


class PipelineModel(FlowModel):
    """A loaded diffusers pipeline.

    Args:
        pipe: The pipeline; not changed, but by ``free_text_encoders``.
        blueprint: Its blueprint.
    """

    blueprint: PipelineBlueprint
    batched_guidance: ClassVar[bool] = True
    """Whether both guidance passes run as one batch, as the pipeline does it, or one after the other."""

    def __init__(self, pipe: Any, blueprint: PipelineBlueprint):
        self.pipe = pipe
        self.blueprint = blueprint
        self.sigma = 1.0
        """Noise level of the velocity that is being computed."""

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

    def free_text_encoders(self) -> None:
        """Takes the text encoders out of the pipeline; see `FlowModel.free_text_encoders`."""
        import torch

        for name, component in self.pipe.components.items():
            if name.startswith("text_encoder") and component is not None:
                self.pipe.register_modules(**{name: None})
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def noise(self, size: Size, seeds: Sequence[int]) -> torch.Tensor:
        """Draws on the CPU, so that an image's noise is the same on every device; see `FlowModel.noise`."""
        import torch

        rows = [self.draw(size, torch.Generator("cpu").manual_seed(seed)) for seed in seeds]
        return torch.cat(rows).to(self.pipe._execution_device, torch.float32)

    def draw(self, size: Size, generator: torch.Generator) -> torch.Tensor:
        """Draws the noise of one image, (1, C, h, w), in the shape and precision in which the pipeline does."""
        import torch

        shape = (1, *self.blueprint.latent_shape(size))
        return torch.randn(shape, generator=generator, dtype=self.network(1.0).dtype)

    def velocity(self, x_BCHW: torch.Tensor, sigma: float, conditioning: Conditioning) -> torch.Tensor:
        """Calls the network once, or twice where there is a negative prompt; see `FlowModel.velocity`."""
        import torch

        self.sigma = sigma
        text = {name: rows for name, rows in conditioning.items() if not name.startswith(_NEGATIVE)}
        if self.blueprint.passes == 1:
            return self._call("cond", x_BCHW, sigma, text)
        negative = {name.removeprefix(_NEGATIVE): rows for name, rows in conditioning.items() if name not in text}
        if self.batched_guidance:
            both = {name: torch.cat([negative[name], text[name]]) for name in text}
            away, towards = self._call("cond_uncond", torch.cat([x_BCHW, x_BCHW]), sigma, both).chunk(2)
        else:
            towards = self._call("cond", x_BCHW, sigma, text)
            away = self._call("uncond", x_BCHW, sigma, negative)
        return self.guided(towards, away)

    def _call(self, cached_as: str, x_BCHW: torch.Tensor, sigma: float, text: Conditioning) -> torch.Tensor:
        """Calls the network once; a feature cache keeps apart what is ``cached_as`` something else."""
        network = self.network(sigma)
        with named_call(network, cached_as):
            return self.blueprint.forward(network, x_BCHW, sigma, text)

    def network(self, sigma: float) -> Any:
        """Returns the network that is called at a noise level."""
        return getattr(self.pipe, self.blueprint.denoiser)

    def cached(self, cache: FeatureCache, sigmas: Sequence[float]) -> contextlib.AbstractContextManager[None]:
        """Lays the cache over the pipeline's network and takes it away after the context; see `FlowModel`."""
        self.blueprint.check_cache(cache)
        return caching(self.network(1.0), cache, sigmas, lambda: self.sigma)

    def guided(self, towards_BCHW: torch.Tensor, away_BCHW: torch.Tensor) -> torch.Tensor:
        """Combines the velocities of the prompt and of the negative prompt (arXiv 2207.12598, Eq. 6)."""
        assert self.blueprint.guidance is not None  # there is no second pass without a guidance scale
        return away_BCHW + self.blueprint.guidance * (towards_BCHW - away_BCHW)

    def decode(self, x_BCHW: torch.Tensor) -> Sequence[Item]:
        """Undoes the VAE's scaling and decodes, as the pipeline does; see `FlowModel.decode`."""
        import torch

        vae = self.pipe.vae
        with torch.no_grad():
            pixels = self.pixels(vae.decode(self.unscaled(x_BCHW).to(vae.dtype), return_dict=False)[0])
        images: list[Image.Image] = self.pipe.image_processor.postprocess(pixels, output_type="pil")
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


def compile_network(network: Any) -> None:
    """Compiles a network in place, anew for every size that it is called at.

    Where diffusers knows the blocks that a network repeats, they are compiled once for all of them.
    """
    if network._repeated_blocks:
        network.compile_repeated_blocks(dynamic=False)
    else:
        network.compile(dynamic=False)


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


def grid_ids(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Returns the position ids (0, row, column) of an image's tokens, whole numbers (height * width, 3)."""
    import torch

    ids = torch.zeros(height, width, 3, device=device, dtype=torch.long)
    ids[..., 1] = torch.arange(height, device=device)[:, None]
    ids[..., 2] = torch.arange(width, device=device)
    return ids.view(height * width, 3)
