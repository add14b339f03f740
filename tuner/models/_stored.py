"""Weights in another form than the pipeline's own: quantised while they are loaded, or in a file of their own."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.diffusers_log import errors_alone
from tuner.errors import UserError, one_line
from tuner.models._options import GGUF

if TYPE_CHECKING:
    from tuner.models.base import Blueprint

DENOISERS = ("transformer", "transformer_2", "unet")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")

_SCALES = (".scale_weight", ".weight_scale", ".weight_scale_2", "scaled_fp8")  # as ComfyUI and ModelOpt name them


def quantization(quantize: str, dtype: str, pipeline: type) -> dict[str, Any]:
    """Says how each denoiser and text encoder of a pipeline is quantised; its autoencoder is not.

    Args:
        quantize: See `ModelOptions.quantize`.
        dtype: Torch dtype name, in which quantised layers compute.
        pipeline: Class of the pipeline.

    Returns:
        A configuration by component, diffusers' own for denoisers and transformers' for text encoders.

    Raises:
        UserError: If the library that quantises is not installed, or if it needs a GPU and there is none.
    """
    library = "torchao" if quantize.startswith("torchao-") else "bitsandbytes"
    if importlib.util.find_spec(library) is None:
        raise UserError(f"Quantisation {quantize!r} needs {library}; install it with `pip install {library}`.")
    import diffusers
    import torch
    import transformers

    if library == "bitsandbytes" and not torch.cuda.is_available():
        raise UserError(f"Quantisation {quantize!r} needs a GPU; leave it out, or take torchao-int8.")
    components = inspect.signature(pipeline).parameters
    with _quiet():
        name, how = _torchao(quantize) if library == "torchao" else _bitsandbytes(quantize, dtype)
        kinds = dict.fromkeys(DENOISERS, getattr(diffusers, name))
        kinds |= dict.fromkeys(TEXT_ENCODERS, getattr(transformers, name))
        return {component: kind(**how) for component, kind in kinds.items() if component in components}


def _bitsandbytes(quantize: str, dtype: str) -> tuple[str, dict[str, Any]]:
    """Returns the name of the configuration's class, and its arguments."""
    import torch

    if quantize == "int8":
        return "BitsAndBytesConfig", {"load_in_8bit": True}
    how = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": getattr(torch, dtype)}
    return "BitsAndBytesConfig", how


def _torchao(quantize: str) -> tuple[str, dict[str, Any]]:
    """Returns the name of the configuration's class, and its arguments: fewer bits for weights alone."""
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    kind = Int8WeightOnlyConfig if quantize == "torchao-int8" else Float8WeightOnlyConfig
    return "TorchAoConfig", {"quant_type": kind()}


def load_denoiser(blueprint: Blueprint, file: Path, device: str | None, dtype: str, config: Any = None) -> Any:
    """Loads a denoiser whose weights are in a file of their own, as diffusers reads it.

    GGUF weights stay as the file has them and are unpacked layer by layer while they are used.

    Args:
        blueprint: The model, whose source says the network's configuration.
        file: A GGUF or safetensors file.
        device: Torch device to load to; None leaves it to whoever moves the pipeline.
        dtype: Torch dtype name.
        config: How to quantise what is in a safetensors file; None leaves it as it is.

    Raises:
        OSError: If the model's configuration cannot be read.
        UserError: If the file cannot be read, or if it holds another network.
    """
    import diffusers
    import torch
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    networks = blueprint.meta_networks()
    kind = type(networks[0])
    if not {parent.__name__ for parent in kind.__mro__} & set(SINGLE_FILE_LOADABLE_CLASSES):
        raise UserError(f"diffusers reads no {kind.__name__} from one file; leave `--transformer` out.")
    if len(networks) > 1:
        raise UserError(f"Model {blueprint.name!r} has two denoisers, not one file; leave `--transformer` out.")
    kind.load_config(blueprint.source, subfolder=blueprint.denoiser)  # a model that is not there is not the file's
    compute = getattr(torch, dtype)
    if file.suffix == GGUF:
        _check_gguf(file)
        config = diffusers.GGUFQuantizationConfig(compute_dtype=compute)
    how = {"dtype": compute, "quantization_config": config, "device": device}
    how |= {"config": blueprint.source, "subfolder": blueprint.denoiser}
    try:
        if file.suffix != GGUF:
            _check_scales(file)
        with _quiet(), _unused() as left_over:
            network = kind.from_single_file(str(file), **how)
    except UserError:
        raise
    except Exception as error:  # conversions of foreign files fail with any error
        raise UserError(
            f"{str(file)!r} could not be read as the {blueprint.denoiser} of {blueprint.name!r} "
            f"({type(error).__name__}: {one_line(error).rstrip('.')}); give a whole file of this model."
        ) from error
    if left_over:
        raise UserError(
            f"{str(file)!r} is not the {blueprint.denoiser} of {blueprint.name!r}, which has no place for "
            f"{len(left_over)} of its weights, e.g. {left_over[0]!r}; give a file of this model."
        )
    return network


def _check_scales(file: Path) -> None:
    """Refuses weights that count only together with scales beside them, which diffusers drops."""
    import safetensors

    with safetensors.safe_open(file, "pt") as weights:
        scales = [name for name in weights.keys() if name.endswith(_SCALES)]  # noqa: SIM118 - it is no mapping
    if scales:
        raise UserError(
            f"{str(file)!r} has scaled weights ({scales[0]!r}), which diffusers does not read; give a file in "
            "bfloat16 or float8 without scales, or a GGUF file."
        )


@contextlib.contextmanager
def _unused() -> Iterator[list[str]]:
    """Lists the weights of a file that diffusers warns to have left out, as it names them."""
    said: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        _, found, names = record.getMessage().partition("were not used when initializing ")
        if found:
            said.extend(names.partition(":")[2].strip(" \n[]'").split(", "))
        return not found

    speaker = logging.getLogger("diffusers.loaders.single_file_model")
    before = speaker.level
    speaker.addFilter(note)
    speaker.setLevel(logging.WARNING)
    try:
        yield said
    finally:
        speaker.setLevel(before)
        speaker.removeFilter(note)


def _check_gguf(file: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"{str(file)!r} needs gguf to be read; install it with `pip install gguf`.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off the terminal what the libraries say about each other's versions."""
    with errors_alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
