"""CLIP score: how well an image matches its prompt, by any CLIP model that open_clip knows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objectives._hub import no_wait_without_network
from objectives.base import Direction, check_pairs
from tuner.errors import UserError, one_line, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image

# torchmetrics' default, and so what most papers mean by "CLIP score" that name no model.
DEFAULT_WEIGHTS = "ViT-L-14/openai"
TINY_FOLDER = Path(__file__).parent / "tiny" / "weights" / "clip"


class Clip:
    """100 times the cosine of the image's and the prompt's CLIP embeddings.

    This is ``100 * cos(E_image, E_prompt)`` in [-100, 100], without the clamp at zero. CLIP-S of Hessel et
    al. 2021 (arXiv 2104.08718, Eq. 1) is ``2.5 * max(cos, 0)``: divide by 40 and clamp to get it;
    torchmetrics' is ``max(100 cos, 0)``. The prompt is used as it is, without the prefix "A photo depicts"
    that Hessel et al. add.

    Prompts longer than the model's context (77 tokens for OpenAI's models) are cut; a warning says so
    once.

    Args:
        weights: ``NAME/TAG`` (a model and a pretrained tag of open_clip), a local folder with
            ``open_clip_config.json`` and the weights, ``hf-hub:OWNER/REPO``, ``tiny`` for the embedded
            model, or ``None`` for ``ViT-L-14/openai``.
        device: A torch device string.
        batch_size: Images per forward pass.

    Raises:
        UserError: If the weights are unknown, missing or cannot be fetched.
    """

    name = "clip"
    unit = "cosine x 100"
    direction: Direction = "maximize"

    def __init__(self, weights: str | None = None, device: str = "cpu", batch_size: int = 32) -> None:
        self._device = device
        self._batch_size = batch_size
        self._model, self._preprocess, self._tokenizer = _load_open_clip(weights or DEFAULT_WEIGHTS, device)
        self._warned = False

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Scores image ``i`` against prompt ``i``; see ``objectives.base.Objective.score``."""
        check_pairs(images, prompts)
        scores: list[float] = []
        for start in range(0, len(images), self._batch_size):
            stop = start + self._batch_size
            scores += self._score_batch(images[start:stop], prompts[start:stop])
        return scores

    def _score_batch(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        import torch

        pixels = torch.stack([self._preprocess(image) for image in images]).to(self._device)
        tokens = self._tokenize(prompts).to(self._device)
        with torch.no_grad():
            image_embeds = self._model.encode_image(pixels, normalize=True)
            prompt_embeds = self._model.encode_text(tokens, normalize=True)
        cosines: list[float] = (image_embeds * prompt_embeds).sum(dim=-1).float().cpu().tolist()
        return [100.0 * cosine for cosine in cosines]

    def _tokenize(self, prompts: Sequence[str]) -> Any:
        tokens = self._tokenizer(list(prompts))
        length = tokens.shape[1]
        if not self._warned:
            # A cut prompt ends in an end-of-text token that one more token of room would move.
            longer = self._tokenizer(list(prompts), context_length=length + 1)[:, :length]
            cut = (longer != tokens).any(dim=1).tolist()
            if any(cut):
                self._warned = True
                warnings.warn(
                    f"CLIP reads {length} tokens of a prompt and ignores the rest; "
                    f"this prompt is longer: {prompts[cut.index(True)]!r}.",
                    stacklevel=4,
                )
        return tokens


def _load_open_clip(weights: str, device: str) -> tuple[Any, Any, Any]:
    """Returns the model in evaluation mode, its image transform and its tokenizer."""
    import open_clip

    model_name, tag = _locate(weights)
    # open_clip builds a tag's network with GELU even where the tag was trained with QuickGELU (all of
    # OpenAI's), and only warns: the scores would be wrong.
    tag_config = open_clip.get_pretrained_cfg(model_name, tag) if tag else {}
    try:
        with no_wait_without_network():
            model, preprocess = open_clip.create_model_from_pretrained(
                model_name, pretrained=tag, device=device, force_quick_gelu=bool(tag_config.get("quick_gelu"))
            )
            tokenizer = open_clip.get_tokenizer(model_name)
    except (RuntimeError, OSError, ValueError) as error:
        raise _load_error(weights, model_name, error) from error
    return model.eval(), preprocess, tokenizer


def _locate(weights: str) -> tuple[str, str | None]:
    """Turns what the user wrote into open_clip's model name and pretrained tag."""
    import open_clip

    if weights == "tiny":
        return f"local-dir:{TINY_FOLDER}", None
    if weights.startswith("hf-hub:"):
        return weights, None
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return f"local-dir:{folder}", None
    if weights.startswith(("/", ".", "~")):
        raise UserError(
            f"CLIP weights {weights!r} are not a folder. Give a folder that holds "
            "open_clip_config.json and open_clip_model.safetensors."
        )
    model_name, _, tag = weights.rpartition("/")
    model_name = model_name or weights
    if model_name not in open_clip.list_models():
        raise unknown_name("CLIP model", model_name, open_clip.list_models())
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if model_name == weights:
        raise UserError(
            f"CLIP weights {weights!r} name a model but no pretrained tag. "
            f"Write NAME/TAG with one of these tags: {', '.join(tags)}."
        )
    if tag not in tags:
        raise unknown_name(f"pretrained tag for CLIP model {model_name}", tag, tags)
    return model_name, tag


def _load_error(weights: str, model_name: str, error: Exception) -> UserError:
    reason = one_line(error)
    if model_name.startswith("local-dir:"):
        return UserError(
            f"CLIP weights {weights!r} could not be loaded: {reason}. The folder must hold "
            "open_clip_config.json and matching weights (open_clip_model.safetensors)."
        )
    return UserError(
        f"CLIP weights {weights!r} could not be fetched or loaded: {reason}. Without network, give a local "
        "folder that holds open_clip_config.json and open_clip_model.safetensors: clip:/path/to/folder."
    )
