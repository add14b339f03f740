"""What a user may choose about a model beside its name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tuner.errors import UserError

Dtype = Literal["float32", "bfloat16", "float16"]
Quantize = Literal["nf4", "int8", "torchao-int8", "torchao-fp8"]
GGUF = ".gguf"
"""Ending of files whose weights stay packed and are unpacked layer by layer while they are used."""
Offload = Literal["model", "group", "sequential", "auto"]
OF_MACHINES = (
    "dtype",
    "quantize",
    "transformer",
    "offload",
    "free_text_encoders",
    "device_map",
    "compile",
    "tiling",
    "attention",
)
"""Options that no preset names, because it runs on whatever machine, with whatever weights."""


class ModelOptions(BaseModel):
    """Options of a model; None leaves each as the model has it.

    Attributes:
        guidance: Guidance scale, true or distilled as the model has it.
        negative_prompt: What true guidance leads away from.
        lora: ``SOURCE`` or ``SOURCE:WEIGHT``, the source a file, a folder or a hub id.
        dtype: Precision of the weights.
        quantize: Four-bit (``nf4``) or eight-bit (``int8``) weights of denoiser and text encoders, by
            bitsandbytes, or eight-bit ones by torchao.
        transformer: A GGUF or safetensors file with the denoiser's weights.
        offload: ``model`` keeps the one component that runs on the GPU, ``sequential`` the one layer, ``group``
            the one layer and the next, which comes while the first runs. ``auto`` keeps all, and is ``model`` from
            when one image does not fit.
        free_text_encoders: Whether all prompts are encoded first, and the text encoders are gone before the
            denoiser is loaded.
        device_map: diffusers' placement of components, e.g. ``balanced`` over all GPUs.
        frames: Frames of a video.
        compile: Whether the denoiser is compiled, at the first call at every stage size.
        tiling: Whether the autoencoder decodes in tiles, which takes less memory and changes the images a little;
            `tuner.fits.with_tiling` says what None comes to.
        attention: Attention backend of the denoiser, as diffusers names it, e.g. ``flash`` or ``sage``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    guidance: float | None = None
    negative_prompt: str | None = None
    lora: str | None = None
    dtype: Dtype | None = None
    quantize: Quantize | None = None
    transformer: str | None = None
    offload: Offload | None = None
    free_text_encoders: bool | None = None
    device_map: str | None = None
    frames: int | None = None
    compile: bool | None = None
    tiling: bool | None = None
    attention: str | None = None

    def of_images(self) -> dict[str, Any]:
        """Returns those that are set and decide the images, bit by bit; where the weights lie does not."""
        without = {"offload", "free_text_encoders", "device_map"} | ({"tiling"} if not self.tiling else set())
        return self.model_dump(exclude=without, exclude_none=True)

    def runtime(self, device: str) -> str:
        """Returns what `FlowModel.runtime` will be after loading to a type of device."""
        return f"{device} {self.dtype or ('bfloat16' if device == 'cuda' else 'float32')}"

    def of_presets(self) -> ModelOptions | None:
        """Returns those that belong to a preset, on whatever machine it runs; None if there are none."""
        kept = self.model_copy(update=dict.fromkeys(OF_MACHINES))
        return kept if kept.of_images() else None

    def lora_and_weight(self) -> tuple[str, float]:
        """Splits ``lora`` into its source and weight, 1 if none is written."""
        found = re.fullmatch(r"(.+?)(?::([-+]?\d*\.?\d+))?", self.lora or "")
        if found is None:
            raise UserError("A LoRA needs a file, a folder or a hub id, and a weight after a colon if not 1.")
        return found[1], float(found[2] or 1)

    def transformer_file(self) -> Path | None:
        """Returns the path of ``transformer``.

        Raises:
            UserError: If it is not there, if it is no file, or if it is of another kind.
        """
        if self.transformer is None:
            return None
        path = Path(self.transformer).expanduser()
        if path.suffix not in (GGUF, ".safetensors"):
            raise UserError(
                f"A transformer is a file that ends in {GGUF} or .safetensors, but got {self.transformer!r}."
            )
        if path.exists() and not path.is_file():
            raise UserError(f"Transformer {str(path)!r} is no file; name the {GGUF} or .safetensors file itself.")
        if not path.exists():
            raise UserError(f"Transformer {str(path)!r} is not here; fetch it with `hf download REPOSITORY FILE`.")
        return path

    def packed(self) -> Path | None:
        """Returns the path of ``transformer`` if its weights stay packed."""
        path = self.transformer_file()
        return path if path and path.suffix == GGUF else None

    def beside(self, folder: Path) -> ModelOptions:
        """Returns them with a LoRA that is found from anywhere, where its source was written as ``./NAME``."""
        if self.lora is None or not self.lora.startswith("./"):
            return self
        path = os.path.abspath(folder / self.lora)  # links are kept: what the hub's cache links to has no ending
        return self.model_copy(update={"lora": path})
