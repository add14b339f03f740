"""LPIPS: how far an image looks from the baseline's, as a network sees it (arXiv 1801.03924)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from objectives import _weights
from objectives.base import About, Direction, check_references, split_dtype
from tuner.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

FILE_NAME = "alexnet-owt-7be5be79.pth"
URL = f"https://download.pytorch.org/models/{FILE_NAME}"
MIN_SIDE = 31
"""Pixels per side that AlexNet's strides leave anything of."""


class Lpips:
    """How far an image looks from the baseline's for the same noise: LPIPS 0.1 on AlexNet.

    Zhang et al. 2018 (arXiv 1801.03924, Eq. 1), by the authors' package ``lpips``, which holds the learned linear
    weights; AlexNet is torchvision's, trained on ImageNet, and fetched from PyTorch's site unless given.

    Args:
        weights: ``alexnet-owt-7be5be79.pth`` or a folder that holds it; None to fetch it. ``@bfloat16`` or
            ``@float16`` at the end casts the network.
        device: A torch device string.
        batch_size: Pairs per forward pass.

    Raises:
        UserError: If AlexNet's weights are missing, cannot be fetched or are of another network.
    """

    name = "lpips"
    unit = "distance"
    direction: Direction = "minimize"
    about = About(
        range=(0, float("inf")), weights=FILE_NAME, license="BSD-2-Clause (lpips), BSD-3-Clause (AlexNet)"
    )

    def __init__(self, weights: str | None = None, device: str = "cpu", batch_size: int = 32) -> None:
        import torch

        source, dtype = split_dtype(weights, "")
        path = _weights.find_weights(
            self.name, FILE_NAME, source or None, lambda: _weights.fetch_url(URL, FILE_NAME)
        )
        self._dtype = getattr(torch, dtype)
        self._network = _build(path).to(device, self._dtype)
        self._device = device
        self._batch_size = batch_size

    def compare(self, images: Sequence[Image], references: Sequence[Image]) -> list[float]:
        """Scores image ``i`` against reference ``i``; see ``objectives.base.FidelityObjective.compare``."""
        check_references(images, references)
        distances: list[float] = []
        pairs = zip(images, references, strict=True)
        for (width, height), of_one_size in groupby(pairs, key=lambda pair: pair[0].size):
            if min(width, height) < MIN_SIDE:
                raise UserError(
                    f"lpips reads images of {MIN_SIDE} pixels and more per side, but got one of {width}x{height}. "
                    "Draw larger images."
                )
            same = list(of_one_size)
            for start in range(0, len(same), self._batch_size):
                distances += self._compare_batch(same[start : start + self._batch_size])
        return distances

    def _compare_batch(self, pairs: Sequence[tuple[Image, Image]]) -> list[float]:
        import torch

        images, references = ([pair[side] for pair in pairs] for side in (0, 1))
        with torch.inference_mode():
            distances: list[float] = (
                self._network(self._pixels(images), self._pixels(references), normalize=True).flatten().tolist()
            )
        return distances

    def _pixels(self, images: Sequence[Image]) -> Tensor:
        import numpy as np
        import torch

        from objectives._pixels import LEVELS, rgb

        pixels_BHWC = torch.from_numpy(np.stack([rgb(image) for image in images]) / LEVELS)
        return pixels_BHWC.movedim(-1, 1).to(self._device, self._dtype)


def _build(path: Path) -> Any:
    """Builds the network with the package's own linear weights and AlexNet's from a file."""
    from lpips import LPIPS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package asks torchvision in a way that it calls deprecated
        network = LPIPS(net="alex", pnet_rand=True, verbose=False)
    alexnet = _weights.read_state(Lpips.name, path)
    try:
        # slice2.3.weight is features.3.weight: the package cuts AlexNet into five and keeps its numbers.
        network.net.load_state_dict(
            {name: alexnet[re.sub(r"^slice\d", "features", name)] for name in network.net.state_dict()}
        )
    except (KeyError, RuntimeError) as error:
        raise _weights.wrong_weights(Lpips.name, path, error) from error
    return network.eval()
