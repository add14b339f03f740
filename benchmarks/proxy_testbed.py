"""Scores of schedules on analytic videos at Wan's prices: where a search and its proxies are simulated."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.gaussian_video import Contents, GaussianVideo
from benchmarks.table import OBJECTIVES, TableSpace
from studies import SearchSettings
from studies.plan.plan import Plan, make_plan
from studies.propose.proposer import draw
from tuner.flops import Price, price
from tuner.models import Blueprint, ModelOptions, Size, blueprint

if TYPE_CHECKING:
    from studies.propose.improvement import Array
    from tuner.schedule import Schedule

MODEL = "wan2.1-1.3b"
TRIALS = 90
NOISE = 1.3  # of a score on one prompt, relative to the quartile distance near the front; table: 1.2 and 1.3
_NEAR = 0.22  # share of the schedules that few others beat; as on the table
_COMPARED = 200  # schedules that noise and rank correlations are taken of
_COARSE = 6  # rings: up to 5.5 cycles per picture height
_LATENT_FRAMES = 4  # frames per latent frame, after the first


@dataclass(frozen=True)
class Proxy:
    """A cheaper video.

    Attributes:
        frames: Its number of frames.
        side: Its sides, as a part of those of full size.
        prompts: How many the first rung scores; its noise on them depends on size and frames alone.
    """

    frames: int = 81
    side: float = 1.0
    prompts: int = field(default=16, repr=False)


FULL = Proxy()


class VideoScores:
    """Exact scores and prices at one size and number of frames.

    Args:
        plan: The search.
        proxy: The size and number of frames.
    """

    def __init__(self, plan: Plan, proxy: Proxy):
        prompts = (*plan.prompts.search, *plan.prompts.held_out)
        frames = 1 + (proxy.frames - 1) // _LATENT_FRAMES
        self.video = GaussianVideo(Contents.drawn(len(prompts)), frames, proxy.side)
        self._columns = {prompt: column for column, prompt in enumerate(prompts)}
        self._model: Blueprint = blueprint(MODEL).with_options(ModelOptions(frames=proxy.frames))
        height, width = plan.size
        self._size: Size = (round(height * proxy.side), round(width * proxy.side))
        self._known: dict[str, Array] = {}

    def price(self, schedule: Schedule) -> Price:
        """Prices a video."""
        return price(schedule, self._model, self._size)

    def exact(self, schedule: Schedule) -> Array:
        """Computes the scores without noise, (prompts, objectives)."""
        if schedule.content_hash not in self._known:
            distances = self.video.distances(schedule)
            coarse, all_rings = distances[:, :_COARSE].mean(axis=1), distances.mean(axis=1)
            self._known[schedule.content_hash] = -np.column_stack([coarse, all_rings])
        return self._known[schedule.content_hash]

    def scores(self, schedule: Schedule, prompts: Sequence[str]) -> dict[str, list[float]]:
        """See `benchmarks.table.Scored`; without noise."""
        found = self.exact(schedule)[[self._columns[prompt] for prompt in prompts]]
        return dict(zip(OBJECTIVES, found.T.tolist(), strict=True))


@functools.cache
def plan_of(seed: int) -> Plan:
    """Makes the plan of a search."""
    settings = SearchSettings(model=MODEL, budget="3x", space="plain", out="runs", trials=TRIALS, reuse=False)
    plan = make_plan(settings)
    plan = replace(plan, settings=plan.settings.model_copy(update={"seed": seed}))
    return replace(plan, space=TableSpace(plan))


@functools.cache
def scores_at(proxy: Proxy) -> VideoScores:
    """Makes the scores of a size and number of frames once."""
    return VideoScores(plan_of(0), proxy)


@functools.cache
def drawn_schedules() -> list[Schedule]:
    """Draws schedules from the space."""
    return [trial.schedule for trial in draw(plan_of(0), (), Random(0), (), _COMPARED)]


@functools.cache
def noise_of(proxy: Proxy) -> Array:
    """The standard deviation of a score's noise on one prompt, (objectives,).

    It is measured by how far the means of the schedules near the front lie apart, as on the table.
    """
    plan, drawn = plan_of(0), drawn_schedules()
    means = np.array([scores_at(proxy).exact(one).mean(axis=0) for one in drawn])
    losses = np.column_stack([[plan.price(one).tflops for one in drawn], -means])
    beaten_by = (losses[:, None] < losses).all(axis=2).sum(axis=0)
    near = means[np.argsort(beaten_by, kind="stable")[: round(_NEAR * len(drawn))]]
    noise: Array = NOISE * np.subtract(*np.quantile(near, (0.75, 0.25), axis=0))
    return noise


def noisy(proxy: Proxy, schedule: Schedule, seed: int, prompts: int) -> Array:
    """What a search measures on the first prompts, (prompts, objectives); the noise is that of a difference."""
    digest = hashlib.sha256(f"{seed}/{proxy}/{schedule.content_hash}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    exact = scores_at(proxy).exact(schedule)
    scores: Array = (exact + noise_of(proxy) * rng.normal(size=exact.shape))[:prompts]
    return scores
