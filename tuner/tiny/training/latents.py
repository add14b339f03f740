"""The denoiser's data: scenes as latents and captions as token ids, made once and kept in files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tuner.tiny.scenes import random_scene, render
from tuner.tiny.training.autoencoder import load_autoencoder
from tuner.tiny.training.data import SIZES, to_float
from tuner.tiny.training.networks import TEXT_TOKENS, build_tokenizer
from tuner.tiny.training.run import Worker, half_precision

SCENES = 80_000
CHUNK = 500


@dataclass(frozen=True)
class Latents:
    """N scenes: token ids (N, T) uint8, and per image size normalised latents (N, C, h, w) float16."""

    tokens: npt.NDArray[np.uint8]
    latents: dict[int, npt.NDArray[np.float16]]


def load_latents(work: Path) -> Latents:
    """Maps the files that ``encode_scenes`` wrote into memory."""
    latents = {size: np.load(work / f"latents-{size}.npy", mmap_mode="r") for size in SIZES}
    return Latents(np.load(work / "tokens.npy"), latents)


def encode_scenes(worker: Worker, scenes: int = SCENES) -> None:
    """Renders and encodes training scenes; each worker fills its share of the chunks in the shared files."""
    work = worker.settings.work
    if worker.rank == 0:
        for size in SIZES:
            shape = (scenes, 8, size // 4, size // 4)
            np.lib.format.open_memmap(work / f"latents-{size}.npy", "w+", np.float16, shape).flush()
        np.lib.format.open_memmap(work / "tokens.npy", "w+", np.uint8, (scenes, TEXT_TOKENS)).flush()
    worker.shared(0)  # the files exist from here on
    model, tokenizer = load_autoencoder(work), build_tokenizer()
    files = {size: np.load(work / f"latents-{size}.npy", mmap_mode="r+") for size in SIZES}
    tokens = np.load(work / "tokens.npy", mmap_mode="r+")
    starts = range(0, scenes, CHUNK)
    for number, start in enumerate(starts):
        if number % worker.settings.workers == worker.rank:
            part = slice(start, min(start + CHUNK, scenes))
            rng = np.random.default_rng([worker.settings.seed, 1, start])
            chunk = [random_scene(rng, "train") for _ in range(part.stop - part.start)]
            tokens[part] = token_ids(tokenizer, [scene.caption for scene in chunk])
            for size, file in files.items():
                images = np.stack([render(scene, size).transpose(2, 0, 1) for scene in chunk])
                file[part] = _encode(model, to_float(images)).half().numpy()
            worker.step = start
    worker.log(scenes=scenes)
    worker.shared(0)  # all shares are written


def token_ids(tokenizer: Any, captions: list[str]) -> npt.NDArray[np.int64]:
    """Returns (N, T) token ids, padded to the length that the pipeline uses."""
    encoded = tokenizer(captions, padding="max_length", max_length=TEXT_TOKENS, truncation=True)
    return np.asarray(encoded.input_ids)


@torch.inference_mode()
def _encode(model: Any, images: torch.Tensor) -> torch.Tensor:
    with half_precision():
        latents = torch.cat([model.encode(part).latent_dist.mode() for part in torch.split(images, 50)])
    normalised: torch.Tensor = (latents.float() - model.config.shift_factor) * model.config.scaling_factor
    return normalised
