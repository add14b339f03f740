"""What the rest of `tuner` may ask of a model: a `Blueprint` needs no weights, a `FlowModel` has them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from tuner.errors import UserError
from tuner.schedule import Schedule, Stage

if TYPE_CHECKING:
    import torch
    from PIL import Image

Size: TypeAlias = tuple[int, int]
"""Height and width in output pixels."""

ReadConfig: TypeAlias = Callable[[str], Mapping[str, Any]]
"""Reads one configuration of a saved pipeline by its path in the folder, e.g. ``transformer/config.json``."""

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
        guidance: Default guidance scale; None where the model takes none.
        text_tokens: Length that prompts are padded or cut to.
        transformer: Configuration of the denoiser, as in its ``config.json``.
        scheduler: Configuration of the sigma grid, as in ``scheduler_config.json``.
        scorers: Weights that suit this model's images, given to objectives that the user leaves open.
    """

    pipeline_class: ClassVar[str]

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
    scorers: str | None = None

    @abstractmethod
    def sigmas(self, steps: int, size: Size) -> tuple[float, ...]:
        """Returns the ``steps + 1`` noise levels of the stock pipeline for an output size."""

    @abstractmethod
    def meta_forward(self, size: Size) -> None:
        """Runs one denoiser forward for one image of this size on meta tensors: no memory, no weights."""

    @abstractmethod
    def reconfigured(self, source: str, read: ReadConfig) -> Blueprint:
        """Returns the blueprint of another model of this family, as its saved configuration describes it."""

    @abstractmethod
    def wrap(self, pipe: Any) -> FlowModel:
        """Makes a `FlowModel` of a loaded pipeline whose blueprint this is."""

    @abstractmethod
    def load(self, device: str | None = None, dtype: str | None = None) -> FlowModel:
        """Loads the weights from ``source`` and wraps them.

        Args:
            device: Torch device; by default the first GPU, else the CPU.
            dtype: Torch dtype name; by default bfloat16 on a GPU and float32 on the CPU.

        Raises:
            UserError: If the source cannot be read.
        """

    @property
    def size(self) -> Size:
        """The default output size."""
        return self.height, self.width

    def plain(self, steps: int, size: Size | None = None) -> Schedule:
        """Plain sampling: one full-size stage with the model's own sigmas."""
        return Schedule(stages=(Stage(sigmas=self.sigmas(steps, size or self.size)),))

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

    Latents are spatial, (B, C, h, w), and float32; packing, timestep conventions and dtypes stay inside.
    """

    blueprint: Blueprint

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

    @abstractmethod
    def decode(self, x_BCHW: torch.Tensor) -> list[Image.Image]:
        """Turns clean latents into B images."""


def with_guidance(model: FlowModel, guidance: float | None) -> FlowModel:
    """Returns a view of a loaded model that samples with another guidance scale; the model stays as it is.

    Args:
        model: A loaded model.
        guidance: Guidance scale, 1 for none; with None, or for a model that takes no guidance, nothing differs.
    """
    if guidance is None or model.blueprint.guidance is None:
        return model
    view = copy.copy(model)
    view.blueprint = replace(model.blueprint, guidance=guidance)
    return view
