"""A LoRA that a preset asks for: fetched, applied while an image is made, and taken off again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from tuner.errors import UserError, one_line

if TYPE_CHECKING:
    from tuner.models import FlowModel

_PEFT_CONFIG, _PEFT_WEIGHTS, _PEFT_PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
_NAME = "tuner"
BESIDE = "./"


class Lora(BaseModel):
    """Low-rank weights that a schedule was made for.

    Attributes:
        source: Hub id, folder or file, in diffusers' or in PEFT's format. In a preset file, a source that
            starts with ``./`` lies beside the file.
        weight: What its update of the weights is multiplied by.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1)
    weight: float = 1.0

    def beside(self, folder: Path) -> Lora:
        """Returns it with a source that is found from anywhere, where it was written relative to a folder."""
        if not self.source.startswith(BESIDE):
            return self
        return self.model_copy(update={"source": str((folder / self.source).resolve())})


@contextlib.contextmanager
def applied(model: FlowModel, lora: Lora | None) -> Iterator[None]:
    """Adds a LoRA to a model's pipeline inside the context; other LoRAs that are active there stay active.

    Args:
        model: A model that wraps a diffusers pipeline.
        lora: What to add; with None nothing happens.

    Raises:
        UserError: If the model takes no LoRA, or if this one cannot be fetched or does not fit.
    """
    if lora is None:
        yield
        return
    pipe: Any = getattr(model, "pipe", None)
    if not hasattr(pipe, "load_lora_weights"):
        raise UserError(f"Model {model.blueprint.name!r} takes no LoRA, and the preset needs {lora.source!r}.")
    found = [_State(layer) for layer in _lora_layers(pipe.transformer)]
    try:
        _load(pipe, lora)
        active = {id(state.layer): state.active for state in found if not state.disabled}
        for layer in _lora_layers(pipe.transformer):
            layer.enable_adapters(True)
            layer.set_adapter([*active.get(id(layer), ()), _NAME], inference_mode=True)
            layer.set_scale(_NAME, lora.weight)  # a layer that this LoRA does not touch ignores it
        yield
    finally:
        pipe.transformer.delete_adapters(_NAME)
        if found:
            for state in found:
                state.restore()
        else:
            pipe.transformer.unload_lora()


class _State:
    """Which LoRAs were active in a layer, so that they can be again."""

    def __init__(self, layer: Any):
        self.layer = layer
        self.active: list[str] = list(layer.active_adapters)
        self.disabled: bool = layer.disable_adapters

    def restore(self) -> None:
        self.layer.set_adapter(self.active, inference_mode=True)
        self.layer.enable_adapters(not self.disabled)


def _lora_layers(transformer: Any) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in transformer.modules() if isinstance(module, BaseTunerLayer)]


def _load(pipe: Any, lora: Lora) -> None:
    from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # else it says of every LoRA that it has none for the text encoders
    try:
        folder = _peft_folder(lora.source)
        if folder is None:
            pipe.load_lora_weights(lora.source, adapter_name=_NAME)
        else:
            _load_peft(pipe.transformer, folder)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"LoRA {lora.source!r} could not be loaded ({type(error).__name__}: {one_line(error)[:200]}); check "
            "the name, the network and that it was made for this model, or set `lora.source` in the preset to a "
            "local folder."
        ) from error
    finally:
        logging.set_verbosity(verbosity)


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


def _load_peft(transformer: Any, folder: Path) -> None:
    """Loads what ``PeftModel.save_pretrained`` wrote, without wrapping the transformer as PEFT itself does."""
    from peft import LoraConfig
    from safetensors.torch import load_file

    weights = load_file(folder / _PEFT_WEIGHTS)
    transformer.load_lora_adapter(
        {name.removeprefix(_PEFT_PREFIX): value for name, value in weights.items()},
        prefix=None,
        adapter_name=_NAME,
        metadata=LoraConfig.from_pretrained(str(folder)).to_dict(),
    )
