"""Image and prompt embeddings by any CLIP model that open_clip knows."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from objectives._hub import no_wait_without_network
from objectives.base import CutPromptWarning, check_pairs
from tuner.errors import UserError, one_line, unknown_name

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

# torchmetrics' default, and so what most papers mean by "CLIP score" that name no model.
DEFAULT_WEIGHTS = "ViT-L-14/openai"
TINY_FOLDER = Path(__file__).parent / "tiny" / "weights" / "clip"

# Half precision with the norms in float32, as open_clip trains.
PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_CACHED_PROMPT_LISTS = 64  # a study has a dozen chunks of prompts, each scored for every schedule


class ClipEmbedder:
    """Embeds images and prompts as unit vectors.

    Args:
        model: A CLIP model of open_clip, in evaluation mode, on ``device``.
        preprocess: Turns a PIL image into what the model reads, (3, H, W).
        tokenizer: Turns a list of prompts into token ids, (B, L).
        device: A torch device string.
        dtype: What the network runs in, one of ``objectives.base.DTYPES``.
        batch_size: Images or prompts per forward pass.
    """

    def __init__(
        self,
        model: Any,
        preprocess: Callable[[Image], Tensor],
        tokenizer: Any,
        device: str,
        dtype: str = "float32",
        batch_size: int = 32,
    ) -> None:
        self._model, self._preprocess, self._tokenizer = model, preprocess, tokenizer
        self._dtype = dtype
        self._device = device
        self._batch_size = batch_size
        self._warned = False
        self._embed_prompts = functools.lru_cache(_CACHED_PROMPT_LISTS)(self._embed_unique_prompts)

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return int(self._model.visual.output_dim)

    def cosines(self, images: Sequence[Image], prompts: Sequence[str], scale: float) -> list[float]:
        """Returns ``scale`` times the cosine of image ``i`` and prompt ``i``.

        Raises:
            UserError: If the two lists differ in length.
        """
        check_pairs(images, prompts)
        if not images:
            return []
        scores: list[float] = (scale * (self.images(images) * self.prompts(prompts)).sum(dim=-1)).tolist()
        return scores

    def images(self, images: Sequence[Image]) -> Tensor:
        """Embeds N images: (N, D) unit vectors, float32, on the CPU."""
        import torch

        dtype = getattr(torch, self._dtype)

        def embed(some: Sequence[Image]) -> Tensor:
            pixels_BCHW = torch.stack([self._preprocess(image) for image in some])
            return cast("Tensor", self._model.encode_image(pixels_BCHW.to(self._device, dtype)))

        return unit_rows(embed, images, self._batch_size)

    def prompts(self, prompts: Sequence[str]) -> Tensor:
        """Embeds N prompts: (N, D) unit vectors, float32, on the CPU.

        Lists of the same prompts are embedded once. A warning says so, once, when a prompt is longer than the
        model's context.
        """
        unique = tuple(dict.fromkeys(prompts))
        row = {prompt: i for i, prompt in enumerate(unique)}
        return self._embed_prompts(unique)[[row[prompt] for prompt in prompts]]

    def _embed_unique_prompts(self, prompts: tuple[str, ...]) -> Tensor:
        def embed(some: Sequence[str]) -> Tensor:
            return cast("Tensor", self._model.encode_text(self._tokenize(some).to(self._device)))

        return unit_rows(embed, prompts, self._batch_size)

    def _tokenize(self, prompts: Sequence[str]) -> Tensor:
        tokens: Tensor = self._tokenizer(list(prompts))
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
                    CutPromptWarning,
                    stacklevel=2,
                )
        return tokens


def unit_rows(embed: Callable[[Sequence[Any]], Tensor], rows: Sequence[Any], batch_size: int) -> Tensor:
    """Embeds N rows, a batch at a time: (N, D) vectors of length 1, float32, on the CPU."""
    import torch

    with torch.inference_mode():
        parts = [embed(rows[i : i + batch_size]).float().cpu() for i in range(0, len(rows), batch_size)]
        return torch.nn.functional.normalize(torch.cat(parts), dim=-1)


def load_clip(weights: str, device: str, dtype: str = "float32", batch_size: int = 32) -> ClipEmbedder:
    """Loads a CLIP model by the weights of a spec.

    Args:
        weights: ``NAME/TAG`` (a model and a pretrained tag of open_clip), a local folder with
            ``open_clip_config.json`` and the weights, ``hf-hub:OWNER/REPO``, or ``tiny`` for the embedded model.
        device: A torch device string.
        dtype: What the network runs in, one of ``objectives.base.DTYPES``.
        batch_size: Images or prompts per forward pass.

    Raises:
        UserError: If the weights are unknown, missing or cannot be fetched.
    """
    import open_clip

    model_name, tag = _locate(weights)
    # open_clip builds a tag's network with GELU even where the tag was trained with QuickGELU (all of
    # OpenAI's), and only warns: the scores would be wrong.
    tag_config = open_clip.get_pretrained_cfg(model_name, tag) if tag else {}
    try:
        with no_wait_without_network():
            model, preprocess = open_clip.create_model_from_pretrained(
                model_name,
                pretrained=tag,
                device=device,
                precision=PRECISIONS[dtype],
                force_quick_gelu=bool(tag_config.get("quick_gelu")),
            )
            tokenizer = open_clip.get_tokenizer(model_name)
    except (RuntimeError, OSError, ValueError) as error:
        raise _load_error(weights, model_name, error) from error
    return ClipEmbedder(model.eval(), preprocess, tokenizer, device, dtype, batch_size)


def _locate(weights: str) -> tuple[str, str | None]:
    """Splits the weights of a spec into open_clip's model name and pretrained tag."""
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
