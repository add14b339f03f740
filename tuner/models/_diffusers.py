"""What all families of diffusers pipelines share without their weights: configurations, counting, loading.

A family is one `PipelineBlueprint` and one `PipelineModel`. The network's call is written once, in
``PipelineBlueprint.forward``; sampling gives it the loaded transformer and counting one on meta tensors, so that
the price of a schedule is the cost of its run.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from tuner.errors import UserError
from tuner.feature_cache import FeatureCache, PyramidAttentionBroadcast
from tuner.models._caching import caching, named_call
from tuner.models._configuration import trusting
from tuner.models._flow_match import flow_match_sigmas, linear_mu
from tuner.models._loading import load_pipeline
from tuner.models._options import ModelOptions
from tuner.models._parts import Part, Parts, read_parts
from tuner.models._schedulers import FLOW_EULER, stock_solver
from tuner.models.base import Blueprint, Conditioning, FlowModel, ReadConfig, Size
from tuner.schedule import Stage

if TYPE_CHECKING:
    import torch

_DEFAULT_OPTIONS = ModelOptions()

PIPELINE_SAMPLE_SIZE = 128
"""What most pipelines have as ``default_sample_size``: latent pixels along a side of the default image."""


class _Wraps(Protocol):
    """Makes a `FlowModel` of a loaded pipeline and its blueprint."""

    def __call__(self, pipe: Any, blueprint: Any, /) -> FlowModel: ...


@dataclass(frozen=True, kw_only=True)
class PipelineBlueprint(Blueprint):
    """A model that runs in a diffusers pipeline, without its weights.

    Attributes:
        vae_factor: Pixels per latent pixel, along height and width.
    """

    transformer_class: ClassVar[str]
    model_class: ClassVar[_Wraps]
    """The family's `PipelineModel`."""
    exported_as: ClassVar[str] = ""
    """The family's name in exporters where the class of the pipeline does not tell it."""
    batched_guidance: ClassVar[bool] = True
    """Whether both guidance passes run as one batch, as the pipeline does it, or one after the other."""
    draws_float32: ClassVar[bool] = False
    """Whether the pipeline draws noise in single precision, whatever the precision of the weights."""
    true_guidance: ClassVar[bool] = False
    """Whether the guidance scale means a second pass with the negative prompt, not an input of the network."""
    no_guidance: ClassVar[float] = 1.0
    """The guidance scale at which, and below which, the pipeline makes no second pass."""
    schedulers: ClassVar[tuple[str, ...]] = (FLOW_EULER,)
    """Classes of diffusers' schedulers that the family knows the levels and the steps of."""
    text_encoders: ClassVar[tuple[Part, ...]] = ()
    """What turns prompts into conditioning, in the published models of the family."""
    autoencoder: ClassVar[Part | None] = None
    """What turns latents into images there."""

    vae_factor: int

    @abstractmethod
    def forward(self, transformer: Any, x_BCHW: torch.Tensor, sigma: float, text: Conditioning) -> torch.Tensor:
        """Calls the network once and returns the velocity (B, C, h, w), float32.

        Args:
            transformer: The loaded network, or one on the meta device.
            x_BCHW: Spatial latents; packing them is this method's part.
            sigma: Noise level, as ``asked`` returns it.
            text: What ``PipelineModel.encode_text`` returned, or ``meta_text``.
        """

    @abstractmethod
    def meta_text(self, config: Any) -> Conditioning:
        """Returns one row of conditioning with the network's shapes; called inside ``torch.device("meta")``.

        Args:
            config: The transformer's configuration with all its defaults.
        """

    def described(
        self, transformer: Mapping[str, Any], vae: Mapping[str, Any], read: ReadConfig
    ) -> dict[str, Any]:
        """Returns the fields that a saved configuration decides: sizes, ``guidance``, ``text_tokens``.

        As written here they are those of a pipeline that says `PIPELINE_SAMPLE_SIZE` and whose network sees
        patches of 2 x 2 latent pixels, as FLUX's.
        """
        return square_sizes(vae_factor(vae), PIPELINE_SAMPLE_SIZE, 2)

    def fixed_text_tokens(self, pipe: Any) -> int:
        """Counts the text tokens that the pipeline's ``max_sequence_length`` leaves out."""
        return 0

    @property
    def channels(self) -> int:
        """Channels of the spatial latents."""
        return int(self.transformer["in_channels"])

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        """Returns the shape of one image's spatial latents, (C, h, w)."""
        return self.channels, size[0] // self.vae_factor, size[1] // self.vae_factor

    def decoded_shape(self, size: Size) -> tuple[int, ...]:
        """Returns the shape of what the autoencoder decodes to one image."""
        return self.latent_shape(size)

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
    def solver(self) -> str:
        """The rule of the pipeline's own scheduler; see `Blueprint.solver`."""
        return stock_solver(self.scheduler, self.schedulers)

    def asked(self, sigma: float) -> float:
        """Returns the level that the network is told at a noise level, which ``forward`` takes."""
        return sigma

    @property
    def passes(self) -> int:
        """Two where there is a pass with the negative prompt; see `Blueprint.passes`."""
        return 2 if self.true_guidance and (self.guidance or 0) > self.no_guidance else 1

    def called(self, stage: Stage, sigma: float) -> Self:
        """Changes the guidance scale, to the one that makes no second pass outside the stage's interval.

        See `Blueprint.called`. A stage cannot turn a pass on that the model was loaded without.
        """
        if stage.guidance is None and stage.guide is None:
            return self
        if self.guidance is None:
            return super().called(stage, sigma)
        if self.passes == 1 and (self.true_guidance or stage.guide is not None):
            why = "its scale turns it off" if self.true_guidance else "its guidance is an input of the network"
            raise UserError(
                f"Model {self.name!r} makes no second pass, since {why}, so a stage cannot have "
                f"`{'guide' if stage.guide is not None else 'guidance'}`; leave it out."
            )
        scale = self.guidance if stage.guidance is None else stage.guidance
        if stage.guide is not None and not stage.guide[1] < sigma <= stage.guide[0]:
            scale = self.no_guidance
        if self.true_guidance:
            scale = max(scale, self.no_guidance)  # all below it are the same one pass
        return replace(self, guidance=scale)

    def scale(self, sigma: float) -> float:
        """Returns the guidance scale of a call that makes a second pass."""
        assert self.guidance is not None  # there is no second pass without a guidance scale
        return self.guidance

    def check_cache(self, cache: FeatureCache) -> None:
        """Refuses a feature cache that would be wrong for this model.

        Raises:
            UserError: If it would take the features of one guidance pass for those of the other.
        """
        mixed = self.passes > 1 and not self.batched_guidance
        if isinstance(cache, PyramidAttentionBroadcast) and mixed:
            raise UserError(
                f"Cache {cache.kind!r} would mix the two guidance passes of {self.name}, which run one after the "
                "other; use another kind."
            )

    def meta_forward(self, size: Size, cache: FeatureCache | None = None) -> None:
        """Builds the transformer from its configuration on the meta device and calls it; see `Blueprint`."""
        import torch

        if cache:
            self.check_cache(cache)
        with torch.device("meta"), torch.no_grad():
            transformer = self._meta_network()
            latents, text = torch.empty(1, *self.latent_shape(size)), self.meta_text(transformer.config)
            if cache is None:
                self.meta_passes(transformer, latents, text)
                return
            with caching(transformer, cache, [1.0, 1.0], lambda: 1.0):
                self.meta_passes(transformer, latents, text)
                self.meta_passes(transformer, latents, text)

    def meta_passes(self, transformer: Any, x_BCHW: torch.Tensor, text: Conditioning) -> None:
        """Makes ``counted_passes`` calls for one image at sigma 1, as sampling does.

        Args:
            transformer: The network on the meta device.
            x_BCHW: Latents of one image.
            text: What ``meta_text`` returned.
        """
        with named_call(transformer, "cond"):
            self.forward(transformer, x_BCHW, 1.0, text)

    def meta_networks(self) -> list[Any]:
        """Builds the one network of most families; see `Blueprint.meta_networks`."""
        import torch

        with torch.device("meta"):
            return [self._meta_network()]

    def _meta_network(self) -> Any:
        import diffusers

        return getattr(diffusers, self.transformer_class).from_config(dict(self.transformer))

    def parts(self) -> Parts:
        """Returns the networks beside the denoiser: those of the folder with the weights, else the family's.

        Raises:
            UserError: If the folder's configurations cannot be used.
        """
        folder = Path(self.source)
        if folder.is_dir():
            with trusting(self.name, "pipeline"):
                return read_parts(folder)
        return Parts(self.text_encoders, self.autoencoder)

    def meta_decode(self, autoencoder: Any, size: Size) -> None:
        """Decodes one image, or one video, on the meta device.

        Args:
            autoencoder: As `Part.build` returns it.
            size: Height and width in pixels.
        """
        import torch

        with torch.device("meta"), torch.no_grad():
            autoencoder.decode(torch.empty(1, *self.decoded_shape(size)), return_dict=False)

    def reconfigured(self, source: str, read: ReadConfig) -> PipelineBlueprint:
        """Reads what a saved or loaded pipeline's configuration says; steps and guidance stay this model's."""
        transformer, vae = read(f"{self.denoiser}/config.json"), read("vae/config.json")
        found = replace(
            self,
            name=source,
            source=source,
            license="see the model's own card",
            transformer=transformer,
            scheduler=read("scheduler/scheduler_config.json"),
            scorers=None,
            **self.described(transformer, vae, read),
        )
        _ = found.solver  # refuses a scheduler that steps in an unknown way
        return found

    def wrap(self, pipe: Any) -> FlowModel:
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
        read = functools.partial(load_pipeline, self, device, dtype, options)
        model = self.wrap(read("text" if options.free_text_encoders else None))
        if options.free_text_encoders:
            model.when_encoded = functools.partial(read, "drawing")
        model.may_offload = options.offload == "auto"
        return model


def vae_factor(vae: Mapping[str, Any]) -> int:
    """Returns the pixels per latent pixel of an ``AutoencoderKL``: every block but the last halves the sides."""
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def square_sizes(factor: int, side: int, patch: int) -> dict[str, Any]:
    """Returns the sizes for `PipelineBlueprint.described` of a model whose default image is square.

    Args:
        factor: Pixels per latent pixel.
        side: Latent pixels along a side of the default image.
        patch: Latent pixels along a side of what the network sees as one token.
    """
    return {"height": side * factor, "width": side * factor, "multiple": patch * factor, "vae_factor": factor}


def empty_text(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Makes one row of conditioning for `PipelineBlueprint.meta_text`, of these shapes without the batch."""
    import torch

    return {name: torch.empty(1, *shape) for name, shape in shapes.items()}
