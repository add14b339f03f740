"""What the rest of `tuner` may ask of a model: a `Blueprint` needs no weights, a `FlowModel` has them."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from tuner.errors import UserError
from tuner.feature_cache import FeatureCache
from tuner.models._configuration import trusting
from tuner.models._options import ModelOptions
from tuner.schedule import Schedule, Stage

if TYPE_CHECKING:
    import torch
    from PIL import Image

_DEFAULT_OPTIONS = ModelOptions()
_LOWEST_START = 0.98  # published schedules for flows start at up to this much less than pure noise

Size: TypeAlias = tuple[int, int]
"""Height and width in output pixels."""

ReadConfig: TypeAlias = Callable[[str], Mapping[str, Any]]
"""Reads one configuration of a saved pipeline by its path in the folder, e.g. ``transformer/config.json``."""


@dataclass(frozen=True)
class Sound:
    """The sound of a video.

    Attributes:
        wave_CT: Waveform by channel, float32 from -1 to 1, on the CPU.
        rate: Samples per second.
    """

    wave_CT: torch.Tensor
    rate: int


Item: TypeAlias = "Image.Image | list[Image.Image]"
"""What a latent is decoded to: an image, or the frames of a video."""

Conditioning: TypeAlias = "Mapping[str, torch.Tensor]"
"""What the network is conditioned on; row i of every tensor belongs to prompt i."""


@dataclass(frozen=True, kw_only=True)
class Blueprint(ABC):
    """Everything that is known of a model without its weights: sizes, default sigmas, cost.

    Attributes:
        name: Short name, as given to ``--model``.
        source: Hub id or folder that ``load`` reads.
        license: Licence of the weights.
        height: Default output height, pixels.
        width: Default output width, pixels.
        multiple: Heights and widths are multiples of this many pixels.
        steps: Steps of the baseline.
        guidance: Guidance scale; None where the model takes none.
        text_tokens: Text tokens that the network attends to; where prompts keep their own length, the most.
        transformer: Configuration of the denoiser, as in its ``config.json``.
        scheduler: Configuration of the sigma grid, as in ``scheduler_config.json``.
        index: Values of ``model_index.json`` that tell this model from others of its pipeline class.
        negative_prompt: What true classifier-free guidance leads away from; unused without it.
        scorers: Weights that suit this model's images, given to objectives that the user leaves open.
        frames: Frames of a video; 1 where the model makes images.
        fps: Frames per second that a video model was trained on; None where the model makes images.
    """

    pipeline_class: ClassVar[str]
    denoiser: ClassVar[str] = "transformer"
    """What the pipeline calls its denoiser."""

    name: str
    source: str
    license: str
    height: int
    width: int
    multiple: int
    steps: int
    guidance: float | None
    text_tokens: int
    transformer: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    index: Mapping[str, Any] = field(default_factory=dict)
    negative_prompt: str = ""
    scorers: str | None = None
    frames: int = 1
    fps: int | None = None

    @functools.cached_property
    def text(self) -> str:
        """All that it says of itself, as one text: what tells blueprints apart. It is written once."""
        return repr(self)

    @abstractmethod
    def sigmas(self, steps: int, size: Size) -> tuple[float, ...]:
        """Returns the ``steps + 1`` noise levels of the stock pipeline for an output size."""

    def start(self, sigma: float) -> float:
        """Returns the standard deviation of the noise that a schedule starts from at a noise level.

        A flow is pure noise at sigma 1 only. Just below, sigma times the noise leaves out under 2 % of the image.

        Raises:
            UserError: If the model cannot start there.
        """
        if not _LOWEST_START <= sigma <= 1:
            raise UserError(
                f"{self.name} starts from noise alone, so the first sigma must be 1, or {_LOWEST_START} at least, "
                f"but it is {sigma:g}; begin the first stage with 1."
            )
        return sigma

    @abstractmethod
    def meta_forward(self, size: Size, cache: FeatureCache | None = None) -> None:
        """Runs ``counted_passes`` denoiser forwards for one image on meta tensors: no memory, no weights.

        Args:
            size: Height and width in pixels.
            cache: A feature cache; with one there are twice as many, of which it may shorten the second half.

        Raises:
            UserError: If the network cannot be cached in this way.
        """

    def meta_networks(self) -> list[Any]:
        """Builds the denoiser's networks on the meta device, for counting their weights.

        Raises:
            UserError: If this family does not say how.
        """
        raise UserError(f"The weights of {self.name} cannot be counted; name other models.")

    @abstractmethod
    def reconfigured(self, source: str, read: ReadConfig) -> Blueprint:
        """Returns the blueprint of another model of this family, as its saved configuration describes it."""

    @abstractmethod
    def wrap(self, pipe: Any) -> FlowModel:
        """Makes a `FlowModel` of a loaded pipeline whose blueprint this is."""

    @abstractmethod
    def load(
        self, device: str | None = None, dtype: str | None = None, options: ModelOptions = _DEFAULT_OPTIONS
    ) -> FlowModel:
        """Loads the weights from ``source`` and wraps them.

        Args:
            device: Torch device; by default the first GPU, else the CPU.
            dtype: Torch dtype name; by default bfloat16 on a GPU and float32 on the CPU.
            options: Quantisation, LoRA, placement and compiling. Guidance, negative prompt and frames are the
                blueprint's, which ``with_options`` changes.

        Raises:
            UserError: If the source cannot be read, or if an option does not work here.
        """

    @property
    def passes(self) -> int:
        """Network passes per image and velocity: with true classifier-free guidance two or more, else one."""
        return 1

    def called(self, stage: Stage, sigma: float) -> Self:
        """Returns the model with the guidance that a stage asks for at the noise level of a network call.

        Raises:
            UserError: If the stage asks for guidance that this model does not have.
        """
        if stage.guidance is not None or stage.guide is not None:
            raise UserError(
                f"Model {self.name!r} takes no guidance scale, so a stage cannot have `guidance` or `guide`; "
                "leave it out."
            )
        return self

    @property
    def counted_passes(self) -> int:
        """How many of those passes ``meta_forward`` makes: one where all cost the same, else all of them."""
        return 1

    @property
    def solver(self) -> str:
        """The step rule of the stock pipeline, one of ``tuner.solvers``."""
        return "euler"

    @property
    def has_sound(self) -> bool:
        """Whether the model draws sound with its videos, which then have its frame rate and no other."""
        return False

    def with_frames(self, frames: int) -> Blueprint:
        """Returns the same model for videos of another length.

        Raises:
            UserError: If the model cannot produce this number.
        """
        if frames != self.frames:
            raise UserError(f"{self.name} makes images, so it cannot make {frames} frames; leave the number out.")
        return self

    def with_options(self, options: ModelOptions) -> Blueprint:
        """Returns the model with the guidance, negative prompt and number of frames that options name.

        Args:
            options: What is changed; None in them leaves the model's own.

        Raises:
            UserError: If the model has no use for one of them.
        """
        changed = self if options.frames is None else self.with_frames(options.frames)
        if (scale := options.guidance) is not None:
            if changed.guidance is None:
                raise UserError(f"Model {self.name!r} takes no guidance scale, but got {scale:g}; leave it out.")
            changed = replace(changed, guidance=scale)
        if options.negative_prompt is None:
            return changed
        if changed.passes == 1:
            raise UserError(
                f"Model {self.name!r} makes no pass with a negative prompt: its guidance is distilled, or its "
                "scale turns it off; leave the negative prompt out."
            )
        return replace(changed, negative_prompt=options.negative_prompt)

    @property
    def size(self) -> Size:
        """The default output size."""
        return self.height, self.width

    def plain(self, steps: int, size: Size | None = None, solver: str | None = None) -> Schedule:
        """Plain sampling: one full-size stage of the model's own sigmas, with its own solver by default."""
        with trusting(self.name, "scheduler"):
            stage = Stage(sigmas=self.sigmas(steps, size or self.size))
        return Schedule(stages=(stage,), solver=solver or self.solver)

    def baseline(self, size: Size | None = None) -> Schedule:
        """The model's own default sampler, which every score is compared with."""
        return self.plain(self.steps, size)

    def check_size(self, size: Size) -> Size:
        """Returns the size unchanged if the model can produce it.

        Raises:
            UserError: If a side is not a positive multiple of ``multiple`` pixels.
        """
        if any(side <= 0 or side % self.multiple for side in size):
            raise UserError(
                f"Size {size[0]}x{size[1]} does not fit {self.name}: height and width must be positive multiples "
                f"of {self.multiple}; try {_rounded(size[0], self.multiple)}x{_rounded(size[1], self.multiple)}."
            )
        return size

    def stage_size(self, size: Size, scale: float) -> Size:
        """Returns the size of a stage: ``scale`` times the output size, rounded to the size multiple."""
        return _rounded(size[0] * scale, self.multiple), _rounded(size[1] * scale, self.multiple)


def _rounded(length: float, multiple: int) -> int:
    return max(1, round(length / multiple)) * multiple


class FlowModel(ABC):
    """A loaded model that predicts the velocity of a flow from noise (sigma 1) to images (sigma 0).

    Latents are spatial, (B, C, h, w), or (B, C, F, h, w) with F latent frames for videos, and float32; packing,
    timestep conventions and dtypes stay inside. What a model draws beside the picture, which no change of size
    concerns, is in the same tensor: ``picture`` and ``with_picture`` know where.
    """

    blueprint: Blueprint
    may_offload: bool = False
    """Whether ``make_room`` may take components off the device."""
    when_encoded: Callable[[], Any] | None = None
    """Loads what draws, where there are text encoders alone; ``free_text_encoders`` calls it."""

    @property
    def device(self) -> str:
        """Type of the device that the latents are on, as torch names it."""
        return "cpu"

    @property
    def runtime(self) -> str:
        """Device type and precision of the weights, which scores depend on, e.g. ``cuda bfloat16``."""
        return f"{self.device} float32"

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Turns B prompts into conditioning with B rows."""

    @abstractmethod
    def noise(self, size: Size, seeds: Sequence[int]) -> torch.Tensor:
        """Draws one noise latent per seed, (B, C, h, w); row i depends on ``seeds[i]`` alone.

        It is the noise that the stock pipeline draws for ``torch.Generator("cpu").manual_seed(seeds[i])``.
        """

    @abstractmethod
    def velocity(self, x_BCHW: torch.Tensor, sigma: float, conditioning: Conditioning) -> torch.Tensor:
        """Predicts dx/dsigma, (B, C, h, w), float32."""

    def picture(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        """Returns the part of latents that has a height and a width: all of it, unless there is sound."""
        return x_BCHW

    def with_picture(self, x_BCHW: torch.Tensor, picture_BCHW: torch.Tensor) -> torch.Tensor:
        """Puts another picture, which may be of another size, in the place of the latents' own."""
        return picture_BCHW

    def guiding(self, stage: Stage) -> AbstractContextManager[None]:
        """Makes the calls of ``velocity`` inside the context with the guidance that a stage names.

        Raises:
            UserError: If the model cannot.
        """
        raise UserError(
            f"Model {self.blueprint.name!r} takes no guidance scale, so a stage cannot have `guidance` or "
            "`guide`; leave it out."
        )

    def cached(self, cache: FeatureCache, sigmas: Sequence[float]) -> AbstractContextManager[None]:
        """Lays an empty feature cache over the calls of ``velocity`` inside the context.

        Args:
            cache: The cache.
            sigmas: Noise levels of the calls that will be made.

        Raises:
            UserError: If the network cannot be cached in this way.
        """
        raise UserError(f"Cache {cache.kind!r} does not work with {self.blueprint.name}; leave it out.")

    @abstractmethod
    def decode(self, x_BCHW: torch.Tensor) -> Sequence[Item]:
        """Turns clean latents into B images, or B videos."""

    def sounds(self, x_BCHW: torch.Tensor) -> Sequence[Sound]:
        """Turns clean latents into the sounds of B videos; none where the model draws no sound."""
        return []

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Turns B images of one size, multiples of the size multiple, into clean latents: undoes ``decode``.

        Only schedules that change size in pixel space need it, so a family may leave it out.

        Raises:
            UserError: If this family cannot.
        """
        raise UserError(
            f"Model {self.blueprint.name!r} cannot encode images, which `resample: pixel` needs; use another mode."
        )

    def compile(self) -> None:
        """Compiles the networks in place, each anew for every size; raises a `UserError` if the family cannot."""
        raise UserError(f"Model {self.blueprint.name!r} cannot be compiled; leave `--compile` out.")

    def free_text_encoders(self) -> None:  # noqa: B027 - a model may have none
        """Gives the text encoders' memory back; nothing can be encoded after it."""

    def make_room(self) -> bool:
        """Takes less memory from now on, and says whether it does; it may be slower then."""
        return False
