"""A table of latents that do not fit the memory at once is the same table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from tests.distill.test_table import SIGMAS, STEPS, bent, start
from tests.studies.toy import ToyModel
from tuner.activations import _Live
from tuner.distill import candidates, clean, oss
from tuner.distill.bands import everywhere
from tuner.distill.oss import BatchedNetwork
from tuner.distill.table import Distance, Table, fill
from tuner.distill.teacher import Choice, walk

PROMPTS = 5


def table(choice: Choice, distance: Distance, solver: str) -> Table:
    teacher = walk(bent, start(PROMPTS), SIGMAS)
    return fill(teacher, bent, everywhere(STEPS, 4), choice, distance, solver)


@pytest.mark.parametrize("solver", ["euler", "dpmpp-2m", "heun"])
@pytest.mark.parametrize("distance", ["x_0", "x_t"])
@pytest.mark.parametrize("choice", ["joint", "each"])
@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_prompts_one_after_the_other_give_the_same_table(
    choice: Choice, distance: Distance, solver: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = table(choice, distance, solver)
    monkeypatch.setattr(candidates, "MOST_BYTES", at_once * 3 * 8 * 2)  # two origins of three numbers
    parts = table(choice, distance, solver)
    assert (parts.before == whole.before).all()
    assert parts.cost == pytest.approx(whole.cost, rel=1e-12)


def test_a_few_values_foretell_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates only say which candidates the network is asked about."""
    wide = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def pull(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return x * (1 + 0.3 * torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)) + (3 * x * sigma).sin()

    teacher = walk(pull, wide, SIGMAS)
    whole = fill(teacher, pull, everywhere(STEPS, 3)).cost[3, -1]
    monkeypatch.setattr(clean, "_MOST_VALUES", 500)
    some = fill(teacher, pull, everywhere(STEPS, 3)).cost[3, -1]
    assert some == pytest.approx(whole, rel=0.05)


def test_no_more_is_kept_than_the_recursion_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher, one way to each level, a look at one level, and not all candidates of all prompts."""
    numbers, prompts, levels = 20_000, 8, 24
    latents = 8 * numbers * prompts
    monkeypatch.setattr(candidates, "MOST_BYTES", latents)
    monkeypatch.setattr(clean, "_MOST_VALUES", 1000)
    generator = torch.Generator().manual_seed(0)
    sigmas = torch.linspace(1, 0, levels + 1).tolist()
    live = _Live()
    with live:
        noise = torch.randn(prompts, numbers, generator=generator, dtype=torch.float64)
        teacher = walk(lambda x, sigma: x.sin(), noise, sigmas)
        fill(teacher, lambda x, sigma: x.sin(), everywhere(levels, 4))
    assert live.most < (4 * levels + 16) * latents  # it was 8 and 5 for each look, and all candidates


@dataclass
class Device:
    """A model on another device than its latents."""

    inner: Any
    device: str = "meta"

    def velocity(self, x_BCHW: torch.Tensor, sigma: float, conditioning: Any) -> Any:
        assert x_BCHW.device.type == self.device

        class Answer:
            def to(self, place: torch.device) -> torch.Tensor:
                return torch.ones(x_BCHW.shape, device=place)

        return Answer()


def test_the_network_gets_latents_where_it_is_and_gives_them_back() -> None:
    network = BatchedNetwork(Device(ToyModel()), {}, 2)  # type: ignore[arg-type]
    found = network(torch.zeros(5, 3), 0.5)
    assert found.device.type == "cpu"
    assert found.equal(torch.ones(5, 3))
    assert network.images == 5


@pytest.mark.parametrize(("levels", "moved"), [(1, False), (100, True)])
def test_large_latents_are_kept_on_the_cpu(levels: int, moved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oss, "_MOST_ON_DEVICE", 4 * 4 * 15)

    class Latents:
        nbytes = 4 * 15

        def cpu(self) -> str:
            return "moved"

    network = BatchedNetwork(ToyModel(), {}, 2)
    assert (network.kept(Latents(), levels) == "moved") is moved  # type: ignore[arg-type, comparison-overlap]
