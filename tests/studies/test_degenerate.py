from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from studies.records.score_log import ScoreLog
from studies.work.broken_images import decode_and_check, fault_counts, fault_of
from studies.work.evaluator import Evaluator
from studies.work.task import Failure, Task
from tests.studies.toy import TOY, Brightness, ToyModel
from tuner.models import wrap

BLACK, GREY = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "grey")
WELL = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        (BLACK, "all black"),
        (GREY, "all one colour"),
        (Image.new("L", (8, 8), 0), "all black"),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "all black"),
        (WELL, None),
        ([BLACK, WELL], None),  # a video may fade in
        ([BLACK, BLACK], "all black"),
        ([BLACK, GREY], "all one colour"),
    ],
)
def test_what_is_wrong_with_an_image_or_a_video(image: Any, fault: str | None) -> None:
    assert fault_of(image) == fault


def test_one_pixel_is_enough_to_be_an_image() -> None:
    image = BLACK.copy()
    image.putpixel((3, 4), (0, 0, 1))
    assert fault_of(image) is None


class Mixed(ToyModel):
    """Draws well for even seeds; the first value of a latent says what else to do."""

    faults = ("well", "latent", "pixel", "black", "grey")

    def noise(self, size: Any, seeds: Sequence[int]) -> torch.Tensor:
        x_BCHW = super().noise(size, seeds)
        for row, seed in zip(x_BCHW, seeds, strict=True):
            row[:, 0, 0] = float("nan") if self.faults[seed] == "latent" else 100.0 + seed
        return x_BCHW

    def velocity(self, x_BCHW: torch.Tensor, *_: Any) -> torch.Tensor:
        return torch.zeros_like(x_BCHW)

    def decode(self, x_BCHW: torch.Tensor) -> list[Image.Image]:
        fault = self.faults[int(x_BCHW[0, 0, 0, 0]) - 100]
        if fault == "pixel":
            return [Image.fromarray(np.full((8, 8, 3), np.nan).astype(np.uint8))]
        return [{"black": BLACK, "grey": GREY, "well": WELL}[fault]]


def test_every_fault_of_a_chunk_is_counted_and_none_is_averaged(tmp_path: Path) -> None:
    prompts = tuple(f"prompt {index}" for index in range(5))
    task = Task(TOY.plain(1), prompts, tuple(range(5)), (32, 32))
    outcome = Evaluator(Mixed(), [Brightness()]).evaluate(task)
    assert isinstance(outcome, Failure)
    assert outcome.degenerate == {"not finite": 2, "all black": 1, "all one colour": 1}
    assert outcome.reason == (
        "4 of 5 images are degenerate: 2 not finite, 1 all black, 1 all one colour, the first for 'prompt 1'"
    )
    log = ScoreLog(tmp_path / "scores.jsonl", "weights", {"clip": "clip"}, {})
    log.put(task, outcome, 1.0, 1.0, {})
    again = ScoreLog(tmp_path / "scores.jsonl", "weights", {"clip": "clip"}, {}).get(task)
    assert again == outcome


def test_an_autoencoder_that_overflows_is_caught_before_its_pixels_become_bytes(flux_pipe: Any) -> None:
    model = wrap(flux_pipe)
    latents = model.noise((32, 32), [0, 1])
    weight = flux_pipe.vae.decoder.conv_out.weight
    kept = weight.detach().clone()
    try:
        weight.data.fill_(float("nan"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            images, faults = decode_and_check(model, latents, [True, False])
    finally:
        weight.data.copy_(kept)
    assert (images, fault_counts(faults)) == ([], {"not finite": 2})
    images, faults = decode_and_check(model, latents, [True, True])
    assert (len(images), faults) == (2, [None, None])
