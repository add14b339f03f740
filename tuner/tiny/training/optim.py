"""Optimisers and averages shared by the two trainings."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for weight matrices and flattened convolution kernels.

    Muon is Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). The update is
    scaled by ``0.2 sqrt(max(rows, columns))`` so that its entries have the size of AdamW's (Liu et al.,
    "Muon is scalable for LLM training", arXiv 2502.16982), which lets both share a learning-rate schedule.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates every parameter that has a gradient; matrices of one shape are handled together."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[(parameter.shape[0], parameter[0].numel())].append(parameter)
            for (rows, columns), parameters in by_shape.items():
                updates = orthogonal(torch.stack([self._direction(p, group["momentum"]) for p in parameters]))
                scale = 0.2 * max(rows, columns) ** 0.5
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.add_(update.view_as(parameter), alpha=-group["lr"] * scale)

    def _direction(self, parameter: nn.Parameter, momentum: float) -> torch.Tensor:
        assert parameter.grad is not None  # the caller chose parameters with gradients
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum).flatten(1)


def orthogonal(matrices: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Brings all singular values of (B, rows, columns) matrices near 1 by Newton-Schulz steps, in bfloat16."""
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return torch.as_tensor(x.mT if tall else x, dtype=torch.float32)


class Optimisers:
    """Muon for matrices inside the network, AdamW for everything else, one learning-rate factor for both.

    Args:
        modules: Networks to train.
        muon_lr: Peak learning rate of Muon.
        adamw_lr: Peak learning rate of AdamW, for embeddings, norms, biases and the layers in ``outer``.
        outer: Name prefixes of input and output layers, whose matrices AdamW trains.
    """

    def __init__(
        self, modules: Sequence[nn.Module], muon_lr: float, adamw_lr: float, outer: tuple[str, ...]
    ) -> None:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for module in modules:
            embeddings = {id(p) for m in module.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
            for name, parameter in module.named_parameters():
                inner = parameter.ndim >= 2 and id(parameter) not in embeddings and not name.startswith(outer)
                (matrices if inner else others).append(parameter)
        self._muon = Muon(matrices, muon_lr)
        self._adamw = torch.optim.AdamW(others, adamw_lr, betas=(0.9, 0.98), weight_decay=0.0, foreach=True)
        self._peaks = (muon_lr, adamw_lr)
        self.parameters = [*matrices, *others]

    def step(self, factor: float) -> None:
        """Clips the gradient norm to 1, takes one step at ``factor`` of the peak rates, clears gradients."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimiser, peak in zip((self._muon, self._adamw), self._peaks, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = factor * peak
            optimiser.step()
            optimiser.zero_grad()

    def state_dict(self) -> list[dict[str, object]]:
        """The state of both optimisers."""
        return [self._muon.state_dict(), self._adamw.state_dict()]

    def load_state_dict(self, states: list[dict[str, object]]) -> None:
        """Restores what ``state_dict`` returned."""
        for optimiser, state in zip((self._muon, self._adamw), states, strict=True):
            optimiser.load_state_dict(state)


class Training:
    """A network in training, its moving average and its optimisers: what a checkpoint holds.

    Args:
        model: Network to train.
        rates: Peak learning rates of Muon and AdamW.
        outer: Name prefixes of the layers that AdamW trains; see `Optimisers`.
        decay: Decay of the moving average.
    """

    def __init__(self, model: nn.Module, rates: tuple[float, float], outer: tuple[str, ...], decay: float) -> None:
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.optimisers = Optimisers([model], *rates, outer=outer)
        self._model = model
        self._decay = decay

    def step(self, factor: float, number: int) -> None:
        """Takes step ``number`` at ``factor`` of the peak rates, and lets the average follow."""
        self.optimisers.step(factor)
        update_average(self.average, self._model, number, self._decay)

    def state_dict(self) -> dict[str, Any]:
        """The states of all three."""
        return {
            "model": self._model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimisers.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what ``state_dict`` returned."""
        self._model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimisers.load_state_dict(state["optimiser"])


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Moves an exponential moving average of the weights; early steps count more, so it forgets the start."""
    decay = min(decay, (step + 1) / (step + 10))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
