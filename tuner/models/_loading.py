"""Loads a diffusers pipeline as `ModelOptions` say."""

from __future__ import annotations

import contextlib
import getpass
import inspect
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tuner.errors import UserError, one_line, unknown_name
from tuner.lora import adapted_components, load_lora
from tuner.models._options import ModelOptions
from tuner.models._stored import DENOISERS, TEXT_ENCODERS, load_denoiser, quantization

if TYPE_CHECKING:
    from tuner.models.base import Blueprint

_ADAPTER = "tuner"
Half: TypeAlias = Literal["text", "drawing"]
"""A pipeline without denoisers, or one without text encoders."""


def load_pipeline(
    blueprint: Blueprint, device: str, dtype: str, options: ModelOptions, half: Half | None = None
) -> Any:
    """Loads the pipeline of a blueprint's source. Processes of one machine load to its GPUs one after the other.

    Args:
        blueprint: What to load.
        device: Torch device, unless the options place the components themselves.
        dtype: Torch dtype name.
        options: Quantisation, LoRA and placement.
        half: What to load; None for all of it.

    Raises:
        UserError: If the source cannot be read, if it is another model than the blueprint says, or if an option
            does not work on this machine or with this pipeline.
    """
    import diffusers
    import torch

    _check_placement(options)
    stored = options.transformer_file()
    kind = getattr(diffusers, blueprint.pipeline_class)
    how: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if half is not None:
        left_out = DENOISERS if half == "text" else TEXT_ENCODERS
        how |= dict.fromkeys(name for name in left_out if name in inspect.signature(kind).parameters)
    quantized = {} if options.quantize is None else quantization(options.quantize, dtype, kind)
    quantized = {name: config for name, config in quantized.items() if name not in how}  # not what is left out
    if quantized:
        how["quantization_config"] = diffusers.PipelineQuantizationConfig(quant_mapping=quantized)
    if options.device_map is not None:
        how["device_map"] = options.device_map
    elif device == "cuda" and options.offload in (None, "auto"):
        how["device_map"] = device  # straight to the GPU, and not by way of the machine's memory
    try:
        with _one_at_a_time(device), _without_bars():
            if stored is not None and half != "text":
                to = device if options.offload is None and options.device_map is None else None
                own = quantized.get(blueprint.denoiser)
                how[blueprint.denoiser] = load_denoiser(blueprint, stored, to, dtype, own)
            pipe = kind.from_pretrained(blueprint.source, **how)
            if "device_map" not in how and options.offload is None:
                pipe.to(device)
    except OSError as error:
        raise UserError(
            f"Model {blueprint.name!r} could not be loaded from {blueprint.source!r}: it is neither a local "
            "pipeline folder nor reachable on the hub; check the network and the licence (`hf auth login`), or "
            "give a local folder."
        ) from error
    except NotImplementedError as error:  # diffusers' word for an unknown device map
        raise UserError(f"Device map {options.device_map!r} does not work here: {one_line(error)}") from error
    pipe.set_progress_bar_config(disable=True)
    if half == "text":
        return pipe
    if options.tiling:
        _decode_in_tiles(pipe)
    if options.attention is not None:
        for name in DENOISERS:
            if (part := getattr(pipe, name, None)) is not None:
                _choose_attention(part, options.attention)
    network = getattr(pipe, blueprint.denoiser)
    _check_same_model(blueprint, blueprint.denoiser, blueprint.transformer, network.config)
    scheduler = {**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__}
    _check_same_model(blueprint, "scheduler", blueprint.scheduler, scheduler)
    if options.lora is not None:
        fusable = options.quantize is None and options.packed() is None
        _add_lora(pipe, network, *options.lora_and_weight(), fuse=fusable)
    if options.compile:
        for name in DENOISERS:
            if (part := getattr(pipe, name, None)) is not None:
                compile_network(part)
    if options.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif options.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    elif options.offload == "group":
        offload_groups(pipe, device)
    return pipe


def _decode_in_tiles(pipe: Any) -> None:
    if not hasattr(pipe.vae, "use_tiling"):
        raise UserError(f"{type(pipe.vae).__name__} does not decode in tiles; leave `--tiling` out.")
    pipe.vae.enable_tiling()


def offload_groups(pipe: Any, device: str) -> None:
    """Lets a layer's weights come to the device while the layer before it runs, on a GPU."""
    import torch

    pipe.enable_group_offload(torch.device(device), offload_type="leaf_level", use_stream=device != "cpu")


@contextlib.contextmanager
def _one_at_a_time(device: str) -> Iterator[None]:
    """Waits while another process of this user on this machine loads to a GPU: each takes memory of both."""
    if device == "cpu":
        yield
        return
    from filelock import FileLock

    with FileLock(Path(tempfile.gettempdir()) / f"tuner-{getpass.getuser()}-loads.lock"):
        yield


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Hides the libraries' bars of a second or so; bars of downloads stay."""
    from diffusers.utils import logging as diffusers_bars
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging as transformers_bars

    shown = [bars for bars in (diffusers_bars, transformers_bars) if bars.is_progress_bar_enabled()]
    show_downloads = disable_progress_bars if are_progress_bars_disabled() else enable_progress_bars
    for bars in shown:
        bars.disable_progress_bar()
    show_downloads()  # transformers turns these off and on with its own
    try:
        yield
    finally:
        for bars in shown:
            bars.enable_progress_bar()
        show_downloads()


def _choose_attention(network: Any, backend: str) -> None:
    if not hasattr(network, "set_attention_backend"):
        raise UserError(f"{type(network).__name__} has no choice of attention; leave `--attention` out.")
    from diffusers.models.attention_dispatch import AttentionBackendName

    known = [one.value for one in AttentionBackendName]
    if backend not in known:
        raise unknown_name("attention backend", backend, known)
    try:
        network.set_attention_backend(backend)
    except (ImportError, RuntimeError, ValueError) as error:
        raise UserError(
            f"Attention backend {backend!r} does not work here: {one_line(error)} Choose another one, or leave "
            "`--attention` out."
        ) from error


def _check_placement(options: ModelOptions) -> None:
    import torch

    if options.offload and options.device_map:
        raise UserError("Offloading and a device map exclude each other; give one of them.")
    if options.free_text_encoders and (options.lora or options.offload):
        other = "--lora" if options.lora else "--offload"
        why = "may change the text encoders, too" if options.lora else "moves them away itself"
        raise UserError(f"--free-text-encoders does not go with {other}, which {why}; leave one of them out.")
    if options.offload and not torch.cuda.is_available():
        raise UserError(
            f"Offload {options.offload!r} moves weights to a GPU while they are used, and none is here; leave "
            "`--offload` out."
        )


def _check_same_model(
    blueprint: Blueprint, part: str, known: Mapping[str, Any], loaded: Mapping[str, Any]
) -> None:
    """Refuses weights whose configuration is not the one that costs and sigmas are computed from."""
    for key, value in known.items():
        theirs = loaded.get(key, value)
        if as_on_file(theirs) != as_on_file(value):
            raise UserError(
                f"{blueprint.source!r} is not the {blueprint.name!r} that is known here: its {part} has "
                f"{key}={theirs}, not {value}; give the hub id or folder as the model, which reads its own "
                "configuration."
            )


def as_on_file(value: Any) -> Any:
    """Makes a list of a tuple, as a configuration on file does, and leaves the rest as it is."""
    return list(value) if isinstance(value, tuple) else value


def _add_lora(pipe: Any, network: Any, source: str, weight: float, fuse: bool) -> None:
    """Adds a LoRA: fused into the weights it costs nothing; quantised weights keep it beside them."""
    load_lora(pipe, network, source, _ADAPTER)
    if fuse:
        pipe.fuse_lora(adapted_components(pipe), lora_scale=weight, adapter_names=[_ADAPTER])
        pipe.unload_lora_weights()
    else:
        pipe.set_adapters([_ADAPTER], [weight])


def compile_network(network: Any) -> None:
    """Compiles a network in place, anew for every size that it is called at.

    Where diffusers knows the blocks that a network repeats, they are compiled once for all of them.
    """
    if network._repeated_blocks:
        network.compile_repeated_blocks(dynamic=False)
    else:
        network.compile(dynamic=False)
