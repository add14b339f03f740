"""Scenes rendered ahead of time, and images as tensors and back."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tuner.tiny.scenes import random_scene, render

CHUNK = 2000
SIZES = (64, 48, 32)
"""Image sizes in pixels that the model is trained at: full, 3/4 and half."""

Images = npt.NDArray[np.uint8]


def rendered(work: Path, name: str, count: int, sizes: tuple[int, ...], seed: int, workers: int) -> list[Images]:
    """Renders training scenes at each size, or maps the files of an earlier call into memory.

    The same scene has the same index at every size.

    Args:
        work: Folder of the cache.
        name: Stem of the cached files, together with count and seed.
        count: Number of scenes, all from the ``train`` split.
        sizes: Image sizes in pixels.
        seed: Seed of the scenes.
        workers: Rendering processes.

    Returns:
        One (count, 3, size, size) uint8 array per size.
    """
    files = [work / f"{name}-{count}-{seed}-{size}.npy" for size in sizes]
    if not all(file.exists() for file in files):
        chunks = [(start, min(CHUNK, count - start), sizes, seed) for start in range(0, count, CHUNK)]
        with ProcessPoolExecutor(workers) as pool:
            parts = list(pool.map(_render_chunk, chunks))
        for index, file in enumerate(files):
            with file.with_suffix(".part").open("wb") as out:
                np.save(out, np.concatenate([images[index] for images in parts]))
            file.with_suffix(".part").replace(file)
    return [np.load(file, mmap_mode="r") for file in files]


def _render_chunk(job: tuple[int, int, tuple[int, ...], int]) -> list[Images]:
    start, count, sizes, seed = job
    rng = np.random.default_rng([seed, start])
    scenes = [random_scene(rng, "train") for _ in range(count)]
    return [np.stack([render(scene, size).transpose(2, 0, 1) for scene in scenes]) for size in sizes]


def to_float(images: Images) -> torch.Tensor:
    """Brings uint8 images to float32 in [-1, 1], the range of the autoencoder."""
    return torch.from_numpy(np.array(images)).float().div_(127.5).sub_(1)


def to_uint8(images: torch.Tensor) -> Images:
    """Brings (B, 3, H, W) images in [-1, 1] to (B, H, W, 3) uint8."""
    levels = images.float().clamp(-1, 1).add(1).mul(127.5).round().byte()
    return levels.permute(0, 2, 3, 1).contiguous().numpy()
