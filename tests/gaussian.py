"""A flow of which everything is known: from unit noise to Gaussian data."""

from __future__ import annotations

from typing import Any


def exact_velocity(x: Any, sigma: float, variance: Any) -> Any:
    """E[noise - data | x] of x = (1 - sigma) data + sigma noise, for data of one variance or one per component."""
    return x * (sigma - (1 - sigma) * variance) / ((1 - sigma) ** 2 * variance + sigma**2)
