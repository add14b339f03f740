"""The networks of a pipeline beside its denoiser: text encoders and autoencoder, as their configurations say.

They are known for counting memory alone. Sizes are those of the published ``config.json`` of each network.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.errors import UserError
from tuner.models._configuration import check_network
from tuner.text_files import MEBIBYTE, read_text

_LIBRARIES = ("transformers", "diffusers")
_LARGEST = 16 * MEBIBYTE


@dataclass(frozen=True)
class Part:
    """A network and its configuration.

    Attributes:
        class_name: Its class.
        config: What its class is built from.
        library: Module that holds the class.
    """

    class_name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    library: str = "transformers"

    def build(self) -> Any:
        """Builds it on the meta device."""
        import torch

        kind = getattr(importlib.import_module(self.library), self.class_name)
        with torch.device("meta"):
            if hasattr(kind, "config_class"):
                return kind(kind.config_class(**self.config))
            return kind.from_config(dict(self.config))


@dataclass(frozen=True)
class Parts:
    """The networks beside the denoiser.

    Attributes:
        text: What turns a prompt into conditioning.
        autoencoder: What turns latents into images; None if it is not known.
    """

    text: tuple[Part, ...] = ()
    autoencoder: Part | None = None


def read_parts(folder: Path) -> Parts:
    """Reads the parts of a saved pipeline.

    Raises:
        UserError: If a configuration is missing or unreadable, or of another library than diffusers.
    """
    index = _read(folder / "model_index.json")
    named = {name: value for name, value in index.items() if isinstance(value, list) and None not in value}
    text = [_part(folder / name, *named[name]) for name in sorted(named) if name.startswith("text_encoder")]
    return Parts(tuple(text), _part(folder / "vae", *named["vae"]) if "vae" in named else None)


def _part(folder: Path, library: str, class_name: str) -> Part:
    if library not in _LIBRARIES:
        raise UserError(f"{folder.name} of {str(folder.parent)!r} is of {library!r}, which is not known here.")
    config = _read(folder / "config.json")
    check_network(str(folder), config)
    return Part(class_name, config, library)


def _read(path: Path) -> dict[str, Any]:
    text = read_text(path, "Configuration", _LARGEST, "give a folder that save_pretrained wrote")
    found: dict[str, Any] = json.loads(text)
    return found


def _clip(width: int, layers: int, heads: int, projected: bool = True) -> Part:
    config = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": width,
    }
    return Part("CLIPTextModelWithProjection" if projected else "CLIPTextModel", config)


def _t5(width: int, inner: int, layers: int, heads: int, words: int, class_name: str = "T5EncoderModel") -> Part:
    config = {
        "d_model": width,
        "d_ff": inner,
        "d_kv": 64,
        "num_layers": layers,
        "num_heads": heads,
        "vocab_size": words,
        "feed_forward_proj": "gated-gelu",
    }
    return Part(class_name, config)


def _llm(
    width: int, inner: int, layers: int, heads: tuple[int, int], words: int, head: int = 128
) -> dict[str, Any]:
    """Writes down a language model; ``heads`` are those of queries and those of keys and values."""
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": words,
        "head_dim": head,
    }


def _sight(width: int, inner: int, layers: int, **more: Any) -> dict[str, Any]:
    """Writes down the part of a language model that sees images; it is loaded, though no prompt needs it."""
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    return sizes | {"num_attention_heads": 16} | more


_QWEN_2P5_7B = _llm(3584, 18944, 28, (28, 4), 152064)

CLIP_L = _clip(768, 12, 12, projected=False)
CLIP_L_PROJECTED = _clip(768, 12, 12)
CLIP_BIGG = _clip(1280, 32, 20)
T5_XXL = _t5(4096, 10240, 24, 64, 32128)
UMT5_XXL = _t5(4096, 10240, 24, 64, 256384, "UMT5EncoderModel")
BYT5_GLYPH = _t5(1472, 3584, 12, 6, 1510)
GEMMA_2_2B = Part("Gemma2Model", _llm(2304, 9216, 26, (8, 4), 256000, 256))
GEMMA_3_12B = Part(
    "Gemma3ForConditionalGeneration",
    {
        "text_config": _llm(3840, 15360, 48, (16, 8), 262208, 256),
        "vision_config": _sight(1152, 4304, 27, model_type="siglip_vision_model", image_size=896, patch_size=14),
    },
)
LLAMA_3_8B = Part("LlamaModel", _llm(4096, 14336, 32, (32, 8), 128320))
MISTRAL_3_24B = Part(
    "Mistral3ForConditionalGeneration",
    {
        "text_config": {"model_type": "mistral"} | _llm(5120, 32768, 40, (32, 8), 131072),
        "vision_config": _sight(1024, 4096, 24, model_type="pixtral", patch_size=14),
        "tie_word_embeddings": False,
    },
)
QWEN_3_4B = Part("Qwen3Model", _llm(2560, 9728, 36, (32, 8), 151936))
QWEN_2P5_VL_7B_TEXT = Part("Qwen2_5_VLTextModel", _QWEN_2P5_7B)
QWEN_2P5_VL_7B = Part(
    "Qwen2_5_VLForConditionalGeneration",
    {
        "text_config": _QWEN_2P5_7B,
        "vision_config": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
        },
        "tie_word_embeddings": False,
    },
)
LTX2_CONNECTORS = Part("LTX2TextConnectors", library="diffusers.pipelines.ltx2")


def autoencoder(class_name: str, **config: Any) -> Part:
    """Names an autoencoder of diffusers; what is not said is the class's own default, as published."""
    return Part(class_name, config, "diffusers")


def autoencoder_kl(channels: int) -> Part:
    """Names the autoencoder of Stable Diffusion and FLUX.1, with this many latent channels."""
    return autoencoder(
        "AutoencoderKL",
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=channels,
        use_quant_conv=channels < 16,
        use_post_quant_conv=channels < 16,
    )
