"""PickScore: which image a person would pick for a prompt (arXiv 2305.01569)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objectives._hub import no_wait_without_network
from objectives._open_clip import ClipEmbedder
from objectives.base import About, Direction, split_dtype
from tuner.errors import UserError, one_line

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

DEFAULT_WEIGHTS = "yuvalkirstain/PickScore_v1"


class Pickscore:
    """Which image a person would pick for a prompt: PickScore, a CLIP ViT-H/14 trained on their choices.

    Kirstain et al. 2023 (arXiv 2305.01569, section 4): the learned scale, about 100, times the cosine of the two
    embeddings. An image that scores 1 more than another is picked with odds of e to 1. Images are resized to 224
    pixels at the shorter side (bicubic) and cropped at the centre; 77 tokens of a prompt are read.

    Args:
        weights: A local folder or hub repository with a ``CLIPModel`` of transformers (``config.json`` and
            ``model.safetensors``), or ``None`` for ``yuvalkirstain/PickScore_v1``; ``@bfloat16`` or ``@float16``
            at the end casts the network.
        device: A torch device string.
        batch_size: Images per forward pass.

    Raises:
        UserError: If the weights are missing, cannot be fetched or are of another kind.
    """

    name = "pickscore"
    unit = "log odds"
    direction: Direction = "maximize"
    about = About(range=(-100, 100), weights=DEFAULT_WEIGHTS, license="not stated", tokens=77)

    def __init__(self, weights: str | None = None, device: str = "cpu", batch_size: int = 32) -> None:
        from open_clip import SimpleTokenizer

        source, dtype = split_dtype(weights, DEFAULT_WEIGHTS)
        model = _load(source, dtype).to(device)
        tokenizer = SimpleTokenizer(context_length=model.config.text_config.max_position_embeddings)
        preprocess = _preprocess(model.config.vision_config.image_size)
        self._clip = ClipEmbedder(_Encoders(model), preprocess, tokenizer, device, dtype, batch_size)
        self._scale = float(model.logit_scale.detach().float().exp())

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Scores image ``i`` against prompt ``i``; see ``objectives.base.Objective.score``."""
        return self._clip.cosines(images, prompts, self._scale)


class _Encoders:
    """A ``CLIPModel`` of transformers under the names of open_clip's two encoders."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def encode_image(self, pixels_BCHW: Tensor) -> Tensor:
        embeds: Tensor = self._model.get_image_features(pixel_values=pixels_BCHW).pooler_output
        return embeds

    def encode_text(self, tokens_BL: Tensor) -> Tensor:
        embeds: Tensor = self._model.get_text_features(input_ids=tokens_BL).pooler_output
        return embeds


def _load(source: str, dtype: str) -> Any:
    """Loads the model onto the CPU, in evaluation mode."""
    import torch
    from transformers import CLIPModel

    if source.startswith(("/", ".", "~")) and not Path(source).expanduser().is_dir():
        raise UserError(
            f"PickScore weights {source!r} are not a folder. Give one that holds config.json and "
            "model.safetensors, or a hub repository as OWNER/REPO."
        )
    try:
        with no_wait_without_network():
            model, report = CLIPModel.from_pretrained(
                str(Path(source).expanduser()) if Path(source).expanduser().is_dir() else source,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
            )
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"PickScore weights {source!r} could not be fetched or loaded: {one_line(error)[:300]}. Without "
            "network, give a local folder that holds config.json and model.safetensors: pickscore:/path/to/folder."
        ) from error
    if report["missing_keys"]:
        raise UserError(
            f"PickScore weights {source!r} lack {len(report['missing_keys'])} parts of a CLIPModel, "
            f"{min(report['missing_keys'])!r} among them. Take the files of {DEFAULT_WEIGHTS}."
        )
    return model.eval()


def _preprocess(image_size: int) -> Any:
    """The transform that the model was trained with, CLIP's own, of a PIL image to (3, S, S)."""
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    return lambda image: processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
