"""Feature caches: network calls that repeat or extrapolate part of what an earlier call computed.

This file says which caches there are and which calls they shorten; diffusers' own ``enable_cache`` does the work.
To a cache every stage is a run of its own: it starts empty, since features of one size mean nothing at another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class _Cache(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FirstBlockCache(_Cache):
    """Runs the first block; repeats the residual of the others if the first block's residual has hardly changed.

    The method of TeaCache (arXiv 2411.19108) with the first block as its own indicator. Which calls it shortens
    depends on the image, so its price is an upper bound and every image is sampled alone.

    Attributes:
        threshold: Largest mean absolute change of the first block's residual, relative to that residual's mean
            magnitude, at which the other blocks are left out.
    """

    kind: Literal["first_block"]
    threshold: float = Field(default=0.05, gt=0)

    def shortened(self, sigmas: Sequence[float]) -> list[tuple[FeatureCache, int]]:
        """No call is sure to be shortened."""
        return []


class TaylorSeerCache(_Cache):
    """Extrapolates attention outputs from the last full calls by a Taylor series (TaylorSeer, arXiv 2503.06923).

    Attributes:
        interval: After the warm-up one call of this many is full.
        warmup: Leading calls of a stage that are full.
        order: Order of the series; 0 repeats.
        lite: Leave out whole blocks and extrapolate the network's output instead of every attention's.
    """

    kind: Literal["taylorseer"]
    interval: int = Field(default=5, ge=2)
    warmup: int = Field(default=3, ge=1)
    order: int = Field(default=1, ge=0)
    lite: bool = False

    def shortened(self, sigmas: Sequence[float]) -> list[tuple[FeatureCache, int]]:
        """All calls after the warm-up but one in ``interval``; the first full one is the second after it."""
        calls = range(self.warmup, len(sigmas))
        skipped = sum((call - self.warmup - 1) % self.interval != 0 for call in calls)
        return [(TaylorSeerCache(kind="taylorseer", warmup=1, lite=self.lite), skipped)]


class MagCache(_Cache):
    """Repeats the residual of all blocks while its magnitude changes little (MagCache, arXiv 2506.09045).

    Attributes:
        ratios: Pairs (sigma, ratio): how much the residual's magnitude changes in the call at this noise level,
            measured once per model. A call takes the ratio of the nearest level.
        threshold: Largest sum of |1 - product of ratios| over calls that repeat.
        max_skip: Most calls in a row that repeat.
        retention: Leading fraction of a stage's calls that are full.
    """

    kind: Literal["mag"]
    ratios: tuple[tuple[float, float], ...] = Field(min_length=1)
    threshold: float = Field(default=0.06, gt=0)
    max_skip: int = Field(default=3, ge=1)
    retention: float = Field(default=0.2, ge=0, lt=1)

    def at(self, sigmas: Sequence[float]) -> list[float]:
        """Returns the ratio of the call at each noise level."""
        return [min(self.ratios, key=lambda pair: abs(pair[0] - sigma))[1] for sigma in sigmas]

    def shortened(self, sigmas: Sequence[float]) -> list[tuple[FeatureCache, int]]:
        """The calls whose accumulated error stays below the threshold."""
        skipped, product, error, row = 0, 1.0, 0.0, 0
        retained = int(self.retention * len(sigmas) + 0.5)
        for call, ratio in enumerate(self.at(sigmas)):
            if call < retained:
                continue
            product, row = product * ratio, row + 1
            error += abs(1 - product)
            if call > 0 and error <= self.threshold and row <= self.max_skip:
                skipped += 1
            else:
                product, error, row = 1.0, 0.0, 0
        return [(MagCache(kind="mag", ratios=((1.0, 1.0),), retention=0), skipped)]


class PyramidAttentionBroadcast(_Cache):
    """Repeats attention outputs at medium noise levels (PAB, arXiv 2408.12588).

    Attributes:
        spatial: One call of this many computes the self-attentions; None computes them always.
        cross: The same for cross-attentions, where the network has them.
        between: Noise levels (low, high) strictly between which outputs are repeated.
    """

    kind: Literal["pab"]
    spatial: int | None = Field(default=2, ge=2)
    cross: int | None = Field(default=None, ge=2)
    between: tuple[float, float] = (0.1, 0.8)

    @field_validator("between")
    @classmethod
    def _check_between(cls, between: tuple[float, float]) -> tuple[float, float]:
        low, high = between
        if not low < high:
            raise ValueError(f"`low < high` must hold for `between`, but got {list(between)}.")
        return between

    @model_validator(mode="after")
    def _check_something_is_repeated(self) -> PyramidAttentionBroadcast:
        if self.spatial is None and self.cross is None:
            raise ValueError("`spatial`, `cross` or both must be numbers of calls, but both are off.")
        return self

    def shortened(self, sigmas: Sequence[float]) -> list[tuple[FeatureCache, int]]:
        """The calls in the range that are no multiple of ``spatial``, and of ``cross``."""
        low, high = self.between
        inside = [call for call, sigma in enumerate(sigmas) if low < sigma < high]
        every = {"spatial": self.spatial, "cross": self.cross}
        return [
            (
                PyramidAttentionBroadcast.model_validate(
                    {"kind": "pab", "spatial": None, "between": (-1, 2), name: period}
                ),
                sum(call % period != 0 for call in inside),
            )
            for name, period in every.items()
            if period is not None
        ]


FeatureCache: TypeAlias = Annotated[
    FirstBlockCache | TaylorSeerCache | MagCache | PyramidAttentionBroadcast, Field(discriminator="kind")
]
"""One of the caches, told apart by ``kind``.

``shortened(sigmas)`` takes the noise levels of a stage's network calls and returns pairs of a probe, a cache whose
second call is shortened in one way, and the number of calls that are shortened in that way.
"""
