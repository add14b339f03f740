"""Compares orders of enlarging and noising: Table 1 of Scale-wise Distillation (arXiv 2503.16397)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import objectives
from studies.evaluate.ablations import Row, Values
from studies.judge.intervals import paired_score
from tuner.distill.swd.settings import RESAMPLE
from tuner.flops import price
from tuner.resample import resize
from tuner.sampling import renoise
from tuner.solvers import solve

if TYPE_CHECKING:
    import torch

    from objectives import AnyObjective
    from studies.evaluate.swd_students import OnProgress
    from tuner.distill.swd.data import ImageFolder
    from tuner.models._pipeline_model import PipelineModel

_SCALE = 0.5
_GRID = 28
_PAPER: Mapping[float, tuple[float, float, float]] = {
    0.4: (9.2, 32.4, 129.7),
    0.6: (9.8, 17.3, 235.0),
    0.8: (12.9, 13.0, 340.2),
}
"""FID of 5000 images that are drawn on from each noise level, for the orders A, B and C."""


@dataclass(frozen=True)
class Orders:
    """Images that the model draws on from real ones, noised to a level in three orders.

    * A: the full-size latent, noised.
    * B: half the size, enlarged, then noised.
    * C: half the size, noised, then enlarged.

    Attributes:
        model: The model.
        scorers: What scores the images.
        data: Real images with captions.
        images: How many of them.
        batch: Images drawn at once.
        seed: Noise seed of the first image.
        on_progress: Called after every batch.
    """

    model: PipelineModel
    scorers: Sequence[AnyObjective]
    data: ImageFolder
    images: int
    batch: int
    seed: int
    on_progress: OnProgress

    def rows(self) -> list[Row]:
        """Draws and scores; the differences are to A at the same level.

        Raises:
            UserError: If an objective cannot score the images.
        """
        made = []
        for level, fids in _PAPER.items():
            known = self.model.blueprint
            sigmas = (level, *(sigma for sigma in known.sigmas(_GRID, known.size) if sigma < level))
            cost = (len(sigmas) - 1) * price(known.plain(1), known).tflops
            values = {order: self._scores(order, sigmas) for order in "ABC"}
            for (order, scores), fid in zip(values.items(), fids, strict=True):
                paired = {name: paired_score(found, values["A"][name]) for name, found in scores.items()}
                of_paper: Values = (fid, round(fid - fids[0], 1))
                made.append(Row(f"{order} at {level:g}", cost, paired, dict.fromkeys(paired, of_paper)))
        return made

    def _scores(self, order: str, sigmas: Sequence[float]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {one.name: [] for one in self.scorers}
        for start in range(0, self.images, self.batch):
            rows = range(start, min(start + self.batch, self.images))
            texts = self.data.texts(rows)
            images = self.model.decode(self._drawn(order, rows, texts, sigmas))
            for one in self.scorers:
                found[one.name].extend(objectives.score(one, images, texts))
            self.on_progress(f"images: {order} at {sigmas[0]:g}", rows[-1] + 1, self.images)
        return found

    def _drawn(self, order: str, rows: range, texts: Sequence[str], sigmas: Sequence[float]) -> torch.Tensor:
        """Noises real images to the first level and lets the model draw on from there: (B, C, h, w)."""
        import torch

        with torch.no_grad():
            conditioning = self.model.encode(texts)
            start = self._noised(order, rows, sigmas[0])

            def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
                return self.model.velocity(x, sigma, conditioning)

            return solve(self.model.blueprint.solver, velocity, start, sigmas, _no_noise)

    def _noised(self, order: str, rows: range, level: float) -> torch.Tensor:
        from tuner.distill.swd.data import encode_at_scales

        known = self.model.blueprint
        seeds = [self.seed + row for row in rows]
        sizes = [known.stage_size(known.size, _SCALE), known.size]
        pixels = self.data.pixels(rows, known.size).to(self.model.device)
        small, full = encode_at_scales(self.model, pixels, sizes)
        grid = (full.shape[-2], full.shape[-1])
        if order == "C":
            return resize(renoise(small, self.model.noise(sizes[0], seeds), 0.0, level), grid, RESAMPLE)
        clean = full if order == "A" else resize(small, grid, RESAMPLE)
        return renoise(clean, self.model.noise(known.size, seeds), 0.0, level)


def _no_noise(step: int) -> torch.Tensor:
    raise AssertionError("the stock samplers of these models draw no noise between steps")
