from __future__ import annotations

from typing import Any

from tests.small_flux import small_flux
from tests.small_flux import stock_latents as flux_latents

SIZES = [(32, 32), (48, 80)]


def build(seed: int = 0) -> Any:
    return small_flux(seed=seed)


def stock_latents(
    pipe: Any, blueprint: Any, prompts: list[str], seeds: list[int], steps: int, size: tuple[int, int]
) -> Any:
    return flux_latents(pipe, prompts, seeds, steps, size, text_tokens=blueprint.text_tokens)
