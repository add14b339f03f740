"""A LoRA that a preset asks for: fetched, applied while an image is made, and taken off again."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.diffusers_log import errors_alone
from tuner.errors import UserError, one_line

if TYPE_CHECKING:
    from tuner.models._options import ModelOptions
    from tuner.models.base import FlowModel

_PEFT_CONFIG, _PEFT_WEIGHTS, _PEFT_PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
_NAME = "tuner"
_DOWN = re.compile(r"(.+?)[._](?:lora_A|lora_down|lora\.down|lora_linear_layer\.down)\.weight")
_LOW_RANK = re.compile(r"lora|alpha|dora_scale|lokr|loha", re.IGNORECASE)


@contextlib.contextmanager
def applied(model: FlowModel, options: ModelOptions | None) -> Iterator[None]:
    """Adds a LoRA to a model's pipeline inside the context; other LoRAs that are active there stay active.

    Args:
        model: A model that wraps a diffusers pipeline.
        options: Whose LoRA to add; without one nothing happens.

    Raises:
        UserError: If the model takes no LoRA, or if this one cannot be fetched or does not fit.
    """
    if options is None or options.lora is None:
        yield
        return
    source, weight = options.lora_and_weight()
    pipe: Any = getattr(model, "pipe", None)
    network = getattr(pipe, model.blueprint.denoiser, None)
    if network is None:
        raise UserError(f"Model {model.blueprint.name!r} takes no LoRA, and {source!r} was asked for.")
    networks = [network, *_text_encoders(pipe)]
    found = [[_State(layer) for layer in _lora_layers(one)] for one in networks]
    try:
        load_lora(pipe, network, source, _NAME)
        active = {id(state.layer): state.active for states in found for state in states if not state.disabled}
        for layer in (layer for one in networks for layer in _lora_layers(one)):
            layer.enable_adapters(True)
            layer.set_adapter([*active.get(id(layer), ()), _NAME], inference_mode=True)
            layer.set_scale(_NAME, weight)  # a layer that this LoRA does not touch ignores it
        yield
    finally:
        for one, states in zip(networks, found, strict=True):
            _take_off(one, states)


def _text_encoders(pipe: Any) -> list[Any]:
    """Lists the text encoders, to which some LoRAs add, too."""
    components = pipe.components.items()
    return [one for name, one in components if name.startswith("text_encoder") and one is not None]


def adapted_components(pipe: Any) -> list[str]:
    """Lists the names of the components that a LoRA adds to: the denoiser, text encoders, or both."""
    networks = {name: one for name, one in pipe.components.items() if hasattr(one, "named_modules")}
    return [name for name, one in networks.items() if _lora_layers(one)]


def _take_off(network: Any, found: Sequence[_State]) -> None:
    """Leaves a network with the LoRAs that were found in it, as active as they were."""
    from diffusers.utils.peft_utils import delete_adapter_layers, recurse_remove_peft_layers

    delete_adapter_layers(network, _NAME)
    if found:
        for state in found:
            state.restore()
    elif hasattr(network, "unload_lora"):
        network.unload_lora()
    elif _lora_layers(network):
        recurse_remove_peft_layers(network)


class _State:
    """Which LoRAs were active in a layer, so that they can be again."""

    def __init__(self, layer: Any):
        self.layer = layer
        self.active: list[str] = list(layer.active_adapters)
        self.disabled: bool = layer.disable_adapters

    def restore(self) -> None:
        self.layer.set_adapter(self.active, inference_mode=True)
        self.layer.enable_adapters(not self.disabled)


def _lora_layers(network: Any) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in network.modules() if isinstance(module, BaseTunerLayer)]


def load_lora(pipe: Any, network: Any, source: str, name: str) -> None:
    """Loads a LoRA into a pipeline's denoiser, in diffusers' or in PEFT's format.

    Args:
        pipe: A diffusers pipeline.
        network: Its denoiser.
        source: Hub id, folder or file.
        name: What the adapter is called.

    Raises:
        UserError: If the pipeline takes no LoRA, or if this one cannot be fetched or does not fit.
    """
    if not hasattr(pipe, "load_lora_weights"):
        raise UserError(f"{type(pipe).__name__} takes no LoRA; leave {source!r} out.")
    path = Path(source)
    try:
        with errors_alone():  # else it says of every LoRA that it has none for the text encoders
            if (folder := _peft_folder(source)) is not None:
                pairs = _load_peft(network, folder, name)
            else:
                where = (str(path.parent), path.name) if path.is_file() else (source, None)
                pairs = _checked_pairs(pipe, network, source, *where)
                pipe.load_lora_weights(where[0], weight_name=where[1], adapter_name=name)
            _check_reached(pipe, network, source, name, pairs)
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"LoRA {source!r} cannot be loaded ({type(error).__name__}: {one_line(error)[:200]}); check the name, "
            "the network and that it was made for this model, or give a local folder."
        ) from error


def _checked_pairs(pipe: Any, network: Any, source: str, folder: str, file: str | None) -> int:
    """Counts the low-rank pairs of a LoRA in diffusers' format, before anything of it is loaded.

    Raises:
        UserError: If it would change what cannot be taken off again: weights beside the pairs, or the width of a
            layer's input (diffusers rebuilds the layer, e.g. for FLUX.1 Control LoRAs).
    """
    found = pipe.lora_state_dict(folder, weight_name=file)
    weights: dict[str, Any] = found[0] if isinstance(found, tuple) else found
    if others := [key for key in weights if not _LOW_RANK.search(key)]:
        raise UserError(
            f"LoRA {source!r} brings {len(others)} weights beside its low-rank pairs, the first is {others[0]!r}, "
            "and those could not be taken off again; use one of low-rank pairs alone."
        )
    layers = dict(network.named_modules())
    downs = {match[1]: value for key, value in weights.items() if (match := _DOWN.fullmatch(key))}
    for layer, down in downs.items():
        width = getattr(layers.get(layer.partition(".")[2]), "in_features", None)
        if width is not None and down.ndim == 2 and down.shape[1] != width:
            raise UserError(
                f"LoRA {source!r} expects {down.shape[1]} inputs of layer {layer!r}, and the model's has {width}; "
                "use one that was made for this model."
            )
    return len(downs)


def _check_reached(pipe: Any, network: Any, source: str, name: str, pairs: int) -> None:
    """Refuses a LoRA that reached no layer, and warns of one that reached fewer than it has pairs for."""
    layers = (layer for one in (network, *_text_encoders(pipe)) for layer in _lora_layers(one))
    reached = sum(name in layer.active_adapters or name in getattr(layer, "lora_A", ()) for layer in layers)
    if reached == 0:
        raise UserError(
            f"LoRA {source!r} reaches no layer of {type(pipe).__name__}; check that it was made for this model, "
            "and that its keys begin with the component's name, e.g. 'transformer.'."
        )
    if reached < pairs:
        warnings.warn(f"LoRA {source!r}: {pairs - reached} of {pairs} layers are not in this model.", stacklevel=3)


def _peft_folder(source: str) -> Path | None:
    """Returns the folder of a LoRA in PEFT's format, downloaded if need be; None for one in diffusers'."""
    path = Path(source)
    if path.exists():
        return path if (path / _PEFT_CONFIG).is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        config = hf_hub_download(source, _PEFT_CONFIG)
    except LocalEntryNotFoundError:
        raise  # offline: it is an EntryNotFoundError, too, but says nothing about the format
    except EntryNotFoundError:
        return None
    hf_hub_download(source, _PEFT_WEIGHTS)
    return Path(config).parent


def _load_peft(network: Any, folder: Path, name: str) -> int:
    """Loads the files of ``PeftModel.save_pretrained`` without wrapping the network; returns how many pairs."""
    from peft import LoraConfig
    from safetensors.torch import load_file

    weights = load_file(folder / _PEFT_WEIGHTS)
    network.load_lora_adapter(
        {key.removeprefix(_PEFT_PREFIX): value for key, value in weights.items()},
        prefix=None,
        adapter_name=name,
        metadata=LoraConfig.from_pretrained(str(folder)).to_dict(),
    )
    return sum(_DOWN.fullmatch(key) is not None for key in weights)
