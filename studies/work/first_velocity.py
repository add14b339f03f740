"""A model whose first velocity may come from a cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from tuner.models import Conditioning, FlowModel


class FirstVelocity:
    """Wraps a `FlowModel` for one stage: a cached velocity can replace the stage's first network call.

    Does not work with a feature cache, which the first call fills.

    Args:
        model: The model.
        once: Returns the cached velocity, or calls what it is given and caches the result.
    """

    def __init__(self, model: FlowModel, once: Callable[[Callable[[], torch.Tensor]], torch.Tensor]):
        self._model = model
        self._once = once
        self._called = False

    def velocity(self, x_BCHW: torch.Tensor, sigma: float, conditioning: Conditioning) -> torch.Tensor:
        """Predicts dx/dsigma, (B, C, h, w); see `FlowModel.velocity`."""
        if self._called:
            return self._model.velocity(x_BCHW, sigma, conditioning)
        self._called = True
        return self._once(lambda: self._model.velocity(x_BCHW, sigma, conditioning))

    def __getattr__(self, name: str) -> Any:
        """Everything else is the model's own."""
        return getattr(self._model, name)
