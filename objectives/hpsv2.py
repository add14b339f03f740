"""HPS v2.1: which image people prefer for a prompt (arXiv 2306.09341)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from objectives import _hub, _weights
from objectives._open_clip import PRECISIONS, ClipEmbedder
from objectives.base import About, Direction, split_dtype

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

REPOSITORY = "xswu/HPSv2"
FILE_NAME = "HPS_v2.1_compressed.pt"
ARCHITECTURE = "ViT-H-14"


class Hpsv2:
    """Which image people prefer for a prompt: Human Preference Score v2.1, a CLIP ViT-H/14 trained on rankings.

    Wu et al. 2023 (arXiv 2306.09341, section 4): the cosine of the two embeddings, here times 100 as in the
    authors' tables. Images are resized to 224 pixels at the longer side and padded with black, as the authors'
    package does; 77 tokens of a prompt are read.

    Args:
        weights: ``HPS_v2.1_compressed.pt`` or a folder that holds it; None to fetch it from ``xswu/HPSv2``.
            ``@bfloat16`` or ``@float16`` at the end casts the network.
        device: A torch device string.
        batch_size: Images per forward pass.

    Raises:
        UserError: If the weights are missing, cannot be fetched or are of another network.
    """

    name = "hpsv2"
    unit = "cosine x 100"
    direction: Direction = "maximize"
    about = About(range=(-100, 100), weights=f"{REPOSITORY}/{FILE_NAME}", license="Apache-2.0", tokens=77)

    def __init__(self, weights: str | None = None, device: str = "cpu", batch_size: int = 32) -> None:
        import open_clip

        source, dtype = split_dtype(weights, "")
        path = _weights.find_weights(
            self.name, FILE_NAME, source or None, lambda: _hub.download(REPOSITORY, FILE_NAME)
        )
        state = _weights.read_state(self.name, path)
        model = open_clip.create_model(ARCHITECTURE, precision=PRECISIONS[dtype], device=device)
        try:
            model.load_state_dict(state["state_dict"])
        except (KeyError, RuntimeError) as error:
            raise _weights.wrong_weights(self.name, path, error) from error
        preprocess = preprocess_longer_side(model.visual.image_size[0])
        tokenizer = open_clip.get_tokenizer(ARCHITECTURE)
        self._clip = ClipEmbedder(model.eval(), preprocess, tokenizer, device, dtype, batch_size)

    def score(self, images: Sequence[Image], prompts: Sequence[str]) -> list[float]:
        """Scores image ``i`` against prompt ``i``; see ``objectives.base.Objective.score``."""
        return self._clip.cosines(images, prompts, 100)


def preprocess_longer_side(image_size: int) -> Any:
    """The authors' transform of a PIL image to (3, image_size, image_size).

    The tensor is resized, not the PIL image, and padded before it is normalised.
    """
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
    from torchvision.transforms import InterpolationMode, functional

    def transform(image: Image) -> Tensor:
        scale = image_size / max(image.size)
        height, width = round(image.height * scale), round(image.width * scale)
        pixels_CHW = functional.to_tensor(image.convert("RGB"))
        pixels_CHW = functional.resize(pixels_CHW, [height, width], InterpolationMode.BICUBIC)
        left, top = (image_size - width) // 2, (image_size - height) // 2
        padded = functional.pad(pixels_CHW, [left, top, image_size - width - left, image_size - height - top])
        normal: Tensor = functional.normalize(padded, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
        return normal

    return transform
