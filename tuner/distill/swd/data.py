"""Training data: a folder of images with captions, or one that the teacher fills; images as latents.

A folder holds images and a ``metadata.jsonl`` whose lines have ``file_name`` and ``text``, which is what the
`datasets` library calls an image folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tuner.errors import UserError, unwritable
from tuner.models import FlowModel, Size

if TYPE_CHECKING:
    import torch

    from tuner.models._pipeline_model import PipelineModel

METADATA = "metadata.jsonl"


class ImageFolder:
    """Images with captions, read when they are asked for.

    Args:
        folder: Where they are.

    Raises:
        UserError: If there is no ``metadata.jsonl``, or one that names no image or a missing one.
    """

    def __init__(self, folder: Path):
        path = folder / METADATA
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            self._entries = [(folder / line["file_name"], str(line["text"])) for line in lines]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"Data folder {str(folder)!r} has no readable {METADATA} ({type(error).__name__}: {error}); write "
                'one line {"file_name": ..., "text": ...} per image, or use --data generated.'
            ) from error
        missing = next((file for file, _ in self._entries if not file.is_file()), None)
        if missing is not None or not self._entries:
            what = f"names {missing.name!r}, which is not there" if missing else "names no image"
            raise UserError(f"{METADATA} of data folder {str(folder)!r} {what}; correct the file.")

    def __len__(self) -> int:
        return len(self._entries)

    def texts(self, indices: Sequence[int]) -> list[str]:
        """Returns the captions of some images."""
        return [self._entries[index][1] for index in indices]

    def pixels(self, indices: Sequence[int], size: Size) -> torch.Tensor:
        """Reads images, cut to the shape of ``size`` and resized to it: (B, 3, H, W) in [-1, 1]."""
        import torch
        from PIL import Image, ImageOps

        rows = []
        for index in indices:
            with Image.open(self._entries[index][0]) as image:
                fitted = ImageOps.fit(image.convert("RGB"), size[::-1], Image.Resampling.LANCZOS)
            rows.append(torch.from_numpy(np.array(fitted)))
        return torch.stack(rows).permute(0, 3, 1, 2).float() / 127.5 - 1


def generate(
    model: FlowModel,
    prompts: Sequence[str],
    folder: Path,
    seed: int,
    batch: int,
    on_image: Callable[[int, int], None] | None = None,
    share: tuple[int, int] = (0, 1),
) -> None:
    """Fills a folder with one image of the teacher's baseline per prompt; finished images are kept.

    Processes that share the work draw every n-th image each.

    Args:
        model: The teacher.
        prompts: One per image.
        folder: Where to; it is created.
        seed: Seed of the first image's noise, the following counting up.
        batch: Images per network call.
        on_image: Called with (images there, images wanted) of this process.
        share: Number of this process, from 0, and of all processes.

    Raises:
        UserError: If the folder cannot be written.
    """
    from tuner.sampling import sample

    files = [f"{number:06}.png" for number in range(len(prompts))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        mine = range(share[0], len(files), share[1])
        left = [number for number in mine if not (folder / files[number]).is_file()]
        for start in range(0, len(left), batch):
            part = left[start : start + batch]
            conditioning = model.encode([prompts[number] for number in part])
            seeds = [seed + number for number in part]
            images = model.decode(sample(model, model.blueprint.baseline(), conditioning, seeds))
            for number, image in zip(part, images, strict=True):
                if isinstance(image, list):
                    raise UserError(f"Model {model.blueprint.name!r} makes videos; distil a model of images.")
                image.save(folder / f".{files[number]}", format="PNG")
                (folder / f".{files[number]}").replace(folder / files[number])
            if on_image is not None:
                on_image(len(mine) - len(left) + start + len(part), len(mine))
        if share[0] > 0:
            return
        lines = [
            json.dumps({"file_name": file, "text": prompt}) for file, prompt in zip(files, prompts, strict=True)
        ]
        (folder / METADATA).write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise unwritable("Training data", folder, error) from error


def encode_at_scales(model: PipelineModel, pixels_B3HW: torch.Tensor, sizes: Sequence[Size]) -> list[torch.Tensor]:
    """Encodes images at several sizes, shrunk in pixels by averaging areas as in SwD's training code.

    Args:
        model: A model whose pipeline has an image autoencoder.
        pixels_B3HW: Images in [-1, 1], float32.
        sizes: Height and width in pixels of each wanted latent; none larger than the images.

    Returns:
        Clean latents (B, C, h, w), float32, one per size; equal sizes are encoded once.
    """
    import torch.nn.functional as F

    vae = model.pipe.vae
    latents: dict[Size, torch.Tensor] = {}
    for size in sizes:
        if size not in latents:
            small = F.interpolate(pixels_B3HW, size=size, mode="area").to(vae.device, vae.dtype)
            found = vae.encode(small).latent_dist.mode()
            latents[size] = ((found - vae.config.shift_factor) * vae.config.scaling_factor).float()
    return [latents[size] for size in sizes]
