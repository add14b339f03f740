"""ImageReward: how much a person would like an image for its prompt (arXiv 2304.05977)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objectives.base import About, CutPromptWarning, Direction, check_pairs, split_dtype

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

DEFAULT_WEIGHTS = "zai-org/ImageReward"
TINY_FOLDER = Path(__file__).parent / "tiny" / "weights" / "reward"

# The published scorer reads no more of a prompt, the start and end tokens included.
PROMPT_TOKENS = 35


class ImageReward:
    """How much a person would like an image for its prompt: 0 on average, 1 wide on the model's training pairs.

    Only the first 35 tokens of a prompt are read, as in the published scorer; a warning says so once when a
    prompt is longer. Images are resized to 224 pixels at the shorter side (bicubic), then cropped at the
    centre.

    Args:
        weights: A local folder with ``ImageReward.pt`` (or ``.safetensors``) and ``med_config.json``, a hub
            repository ``OWNER/REPO``, ``tiny`` for the embedded model, or ``None`` for
            ``zai-org/ImageReward``; ``@bfloat16`` or ``@float16`` at the end casts the two towers, not the head.
        device: A torch device string.
        batch_size: Image-prompt pairs per forward pass.

    Raises:
        UserError: If the weights are missing, cannot be fetched or are of another kind.
    """

    name = "image_reward"
    unit = "reward"
    direction: Direction = "maximize"
    about = About(weights=DEFAULT_WEIGHTS, license="Apache-2.0", embedded=True, tokens=PROMPT_TOKENS)

    def __init__(self, weights: str | None = None, device: str = "cpu", batch_size: int = 32) -> None:
        from objectives import _image_reward_checkpoint as checkpoint

        source, dtype = split_dtype(weights, DEFAULT_WEIGHTS)
        files = checkpoint.locate(str(TINY_FOLDER) if source == "tiny" else source)
        self._tokenizer = checkpoint.load_tokenizer(files.vocabulary)
        self._network = checkpoint.load_reward(files).to(device).cast_towers(dtype)
        self._preprocess = preprocess(self._network.config.image_size)
        self._device = device
        self._batch_size = batch_size
        self._warned = False

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Scores image ``i`` against prompt ``i``; see ``objectives.base.Objective.score``."""
        check_pairs(images, prompts)
        rewards: list[float] = []
        for start in range(0, len(images), self._batch_size):
            stop = start + self._batch_size
            rewards += self._score_batch(images[start:stop], prompts[start:stop])
        return rewards

    def _score_batch(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        import torch

        pixels = torch.stack([self._preprocess(image) for image in images]).to(self._device)
        token_ids, token_mask = self._tokenize(prompts)
        with torch.inference_mode():
            rewards: list[float] = self._network(
                pixels, token_ids.to(self._device), token_mask.to(self._device)
            ).tolist()
        return rewards

    def _tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        from objectives._blip_reward import tokenize

        token_ids, token_mask, cut = tokenize(self._tokenizer, list(prompts), PROMPT_TOKENS)
        if not self._warned and cut.any():
            self._warned = True
            warnings.warn(
                f"ImageReward reads {PROMPT_TOKENS} tokens of a prompt and ignores the rest; "
                f"this prompt is longer: {prompts[int(cut.int().argmax())]!r}.",
                CutPromptWarning,
                stacklevel=4,
            )
        return token_ids, token_mask


def preprocess(image_size: int) -> Any:
    """The published scorer's transform from a PIL image to a (3, image_size, image_size) tensor.

    The image is converted to RGB after it is resized: the order matters for palette and alpha images.
    """
    from torchvision.transforms import (
        CenterCrop,
        Compose,
        InterpolationMode,
        Lambda,
        Normalize,
        Resize,
        ToTensor,
    )

    return Compose(
        [
            Resize(image_size, interpolation=InterpolationMode.BICUBIC),
            CenterCrop(image_size),
            Lambda(lambda image: image.convert("RGB")),
            ToTensor(),
            Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )
