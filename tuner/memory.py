"""What memory a model takes: the one place that knows. All of it is counted on meta tensors, once, and kept.

bitsandbytes keeps the weights of linear layers in fewer bits and everything else as it is. ``int8`` takes a byte
per weight and a float32 scale per row (arXiv 2208.07339, Sec. 2.1), ``nf4`` half a byte per weight and a float32
scale for every 64 (arXiv 2305.14314, Sec. 2, without its double quantisation, which is off here). It quantises the
denoiser and the text encoders, and not the autoencoder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, NonNegativeInt

from tuner import counts
from tuner.models._configuration import trusting
from tuner.models._diffusers import PipelineBlueprint
from tuner.models._parts import Parts

if TYPE_CHECKING:
    from tuner.models import Blueprint, ModelOptions, Size

Precision = Literal["float32", "bfloat16", "float16", "int8", "nf4"]
Placement = Literal["model", "group", "sequential", "auto"]
"""What moves weights to the device when they are used; see `ModelOptions.offload`."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}  # per number
_BESIDE = 2  # bytes per number that bitsandbytes leaves as it is
_SCALE = 4  # bytes per scale
_NF4_BLOCK = 64  # weights per scale

T = TypeVar("T", bound=BaseModel)


class Network(BaseModel):
    """Sizes of a network.

    Attributes:
        parameters: Number of parameters.
        linear: Those in the weights of linear layers.
        rows: Rows of these weights.
        blocks: Blocks of 64 of these weights.
        layer: The most parameters that one layer holds itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: NonNegativeInt
    linear: NonNegativeInt
    rows: NonNegativeInt
    blocks: NonNegativeInt
    layer: NonNegativeInt

    def bytes(self, precision: Precision) -> int:
        """Returns the bytes of its weights."""
        if precision in _BYTES:
            return _BYTES[precision] * self.parameters
        beside = _BESIDE * (self.parameters - self.linear)
        if precision == "int8":
            return beside + self.linear + _SCALE * self.rows
        return beside + math.ceil(self.linear / 2) + _SCALE * self.blocks


class Weights(BaseModel):
    """Sizes of all networks of a model.

    Attributes:
        denoisers: One, or two that take turns.
        text: Text encoders; none where they are not known.
        autoencoder: What decodes latents; None where it is not known.
        packed: Bytes of a denoiser that is unpacked while it is used; None where it has the common precision.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    denoisers: tuple[Network, ...]
    text: tuple[Network, ...] = ()
    autoencoder: Network | None = None
    packed: NonNegativeInt | None = None

    def loaded(self, options: ModelOptions) -> Weights:
        """Returns them with the denoiser of a file that options name, which GGUF keeps as it is."""
        file = options.packed()
        return self.model_copy(update={"packed": file.stat().st_size}) if file else self

    def each_denoiser(self, precision: Precision) -> list[int]:
        """Returns the bytes of each denoiser."""
        if self.packed is not None:
            return [self.packed]
        return [network.bytes(precision) for network in self.denoisers]

    def denoising(self, precision: Precision) -> int:
        """Returns the bytes of the denoisers."""
        return sum(self.each_denoiser(precision))

    def encoding(self, precision: Precision) -> int:
        """Returns the bytes of the text encoders."""
        return sum(network.bytes(precision) for network in self.text)

    def decoding(self, precision: Precision) -> int:
        """Returns the bytes of the autoencoder."""
        return self.autoencoder.bytes(unquantized(precision)) if self.autoencoder else 0

    def at_once(self, precision: Precision, placement: Placement | None = None, freed: bool = False) -> int:
        """Returns the most bytes of weights that are on the device at once.

        Args:
            precision: Of the weights.
            placement: What moves them to the device when they are used; None where they stay there. What ``auto``
                comes to in the end is meant.
            freed: Whether the text encoders are gone before the denoisers come.
        """
        rest = self.denoising(precision) + self.decoding(precision)
        if placement is None:
            encoding = self.encoding(precision)
            return max(encoding + self.decoding(precision), rest) if freed else encoding + rest
        each = [*self.each_denoiser(precision), *(network.bytes(precision) for network in self.text)]
        if placement in ("model", "auto"):
            return max(*each, self.decoding(precision))
        layer = max(network.layer for network in (*self.denoisers, *self.text))
        return _BYTES[unquantized(precision)] * layer * (2 if placement == "group" else 1)


class Working(BaseModel):
    """The most bytes that tensors beside the weights take at once, for one image or one video.

    Attributes:
        call: While a velocity is computed; see `tuner.activations`.
        decoding: While latents are decoded; 0 where the autoencoder is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    call: NonNegativeInt
    decoding: NonNegativeInt

    def most(self, images: int = 1) -> int:
        """Returns the most bytes for a batch, whose images are decoded one by one."""
        return max(self.call * images, self.decoding)


def needed(
    sizes: Weights,
    beside: Working,
    precision: Precision,
    placement: Placement | None = None,
    freed: bool = False,
    images: int = 1,
) -> int:
    """Returns the most bytes that a worker's tensors take at once, its scorers left out.

    Args:
        sizes: The model's networks.
        beside: What works beside them.
        precision: Of the weights.
        placement: See `Weights.at_once`.
        freed: See `Weights.at_once`.
        images: Images of a batch.
    """
    at_once = sizes.at_once(precision, placement, freed)
    if placement in ("model", "auto"):
        denoiser = max(sizes.each_denoiser(precision))
        return max(at_once, denoiser + beside.call * images, sizes.decoding(precision) + beside.decoding)
    if freed and placement is None:
        return max(at_once, sizes.denoising(precision) + sizes.decoding(precision) + beside.most(images))
    return at_once + beside.most(images)


def machine_bytes() -> int | None:
    """Returns the bytes of the machine's own memory; None where the platform does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def unquantized(precision: Precision) -> Precision:
    """Returns the precision of what is not quantised."""
    return precision if precision in _BYTES else "bfloat16"


def precision_of(options: ModelOptions, device: str) -> Precision:
    """Returns the precision of the weights that options ask for on a type of device."""
    if options.quantize == "torchao-int8" or options.quantize == "torchao-fp8":
        return "int8"  # a byte per weight and a scale per row, too
    return options.quantize or options.dtype or ("float32" if device == "cpu" else "bfloat16")


def weights(blueprint: Blueprint) -> Weights:
    """Counts the weights of a model.

    Raises:
        UserError: If the model's family does not say how to build its networks, or if they cannot be built.
    """

    def count() -> Weights:
        found = _parts(blueprint)
        return Weights(
            denoisers=tuple(map(network_of, blueprint.meta_networks())),
            text=tuple(network_of(part.build()) for part in found.text),
            autoencoder=network_of(found.autoencoder.build()) if found.autoencoder else None,
        )

    return _kept("weights", blueprint, blueprint.size, Weights, count)


def working(blueprint: Blueprint, size: Size, precision: Precision, tiled: bool = False) -> Working:
    """Counts what a model takes beside its weights.

    Args:
        blueprint: The model.
        size: Output (height, width) in pixels.
        precision: Of the weights.
        tiled: Whether the autoencoder decodes in tiles.

    Raises:
        UserError: See `weights`.
    """
    dtype: Precision = "float32" if precision == "float32" else "bfloat16"

    def count() -> Working:
        from tuner.activations import activation_bytes, decoding_bytes

        network = network_of(blueprint.meta_networks()[0])
        decoding, part = 0, _parts(blueprint).autoencoder
        if part is not None and isinstance(blueprint, PipelineBlueprint):
            decoding = decoding_bytes(blueprint, part, size, dtype, tiled)
        return Working(call=activation_bytes(blueprint, size, network.bytes(dtype), dtype), decoding=decoding)

    return _kept(f"{'tiled' if tiled else 'working'} {dtype}", blueprint, size, Working, count)


def network_of(module: Any) -> Network:
    """Counts a torch module, which may be on the meta device."""
    import torch

    layers = list(module.modules())
    linear = [layer.weight for layer in layers if isinstance(layer, torch.nn.Linear)]
    return Network(
        parameters=sum(values.numel() for values in module.parameters()),
        linear=sum(weight.numel() for weight in linear),
        rows=sum(len(weight) for weight in linear),
        blocks=sum(math.ceil(weight.numel() / _NF4_BLOCK) for weight in linear),
        layer=max(sum(values.numel() for values in layer.parameters(recurse=False)) for layer in layers),
    )


def key(kind: str, blueprint: Blueprint, size: Size) -> str:
    """Returns what names a count on disk."""
    return f"{kind} {counts.key_of(blueprint, size, None)} {_parts(blueprint)!r}"


def _parts(blueprint: Blueprint) -> Parts:
    return blueprint.parts() if isinstance(blueprint, PipelineBlueprint) else Parts()


def _kept(kind: str, blueprint: Blueprint, size: Size, form: type[T], count: Callable[[], T]) -> T:
    with trusting(blueprint.name, "network"):
        named = counts.hashed(key(kind, blueprint, size))
        return counts.kept(blueprint, named, form.model_validate, lambda: count().model_dump())
