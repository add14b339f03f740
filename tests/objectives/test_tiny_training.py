from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from objectives.tiny.training import data, degradations, loop, reward
from tuner.tiny.scenes import parse_caption


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> data.Bank:
    return data.load_bank(tmp_path_factory.mktemp("bank"), size=24, seed=0)


def test_only_captions_of_the_train_split_are_learned_from(bank: data.Bank) -> None:
    rng = np.random.default_rng(0)
    wrong = [data.wrong_caption(caption, rng) for caption in bank.captions for _ in range(5)]
    assert {parse_caption(caption).split for caption in [*bank.captions, *wrong]} == {"train"}


def test_wrong_captions_are_wrong(bank: data.Bank) -> None:
    rng = np.random.default_rng(0)
    assert all(data.wrong_caption(caption, rng) != caption for caption in bank.captions)


def test_renders_are_read_back_as_they_were_drawn(tmp_path: Path) -> None:
    drawn, read = (data.load_bank(tmp_path, size=3, seed=1) for _ in range(2))
    assert drawn.captions == read.captions
    assert torch.equal(drawn.images, read.images)
    assert not torch.equal(drawn.images[:, 0], drawn.images[:, 1])  # two geometries per caption


@pytest.mark.parametrize("spoil", degradations.DEGRADATIONS, ids=lambda spoil: spoil.__name__)
def test_a_larger_amount_moves_an_image_further_from_the_clean_one(
    spoil: degradations.Degradation, bank: data.Bank
) -> None:
    clean = bank.images[:, 0].float() / 255
    errors = []
    for amount in (0.0, 0.5, 1.0):
        amounts = torch.full((len(clean),), amount)
        spoiled = torch.stack([spoil(clean, amounts, torch.Generator().manual_seed(seed)) for seed in range(6)])
        assert spoiled.shape[1:] == clean.shape
        errors.append((spoiled - clean).square().mean().item())
    assert errors == sorted(errors)
    assert errors[0] > 0


def test_ghost_blends_in_the_second_render(bank: data.Bank) -> None:
    clean, other = bank.images[:, 0].float() / 255, bank.images[:, 1].float() / 255
    half = degradations.ghost(clean, other, torch.ones(len(clean)))
    torch.testing.assert_close(half, (clean + other) / 2)


def test_levels_are_clean_spoiled_and_worse(bank: data.Bank) -> None:
    levels = reward.spoiled_levels(bank.images.float() / 255, np.random.default_rng(0))
    assert torch.equal(levels[0], bank.images[:, 0].float() / 255)
    spoiled, worse = ((levels[i] - levels[0]).square().mean((1, 2, 3)) for i in (1, 2))
    assert (worse > spoiled).float().mean() > 0.9
    torch.testing.assert_close(levels, (levels * 255).round() / 255)  # what an image file can hold


def test_ranking_loss_is_that_of_image_reward() -> None:
    margins = torch.tensor([-1.0, 0.0, 2.0])
    torch.testing.assert_close(reward.ranking_loss(margins), -torch.sigmoid(margins).log().mean())


class _Problem:
    """A least-squares problem whose batches come from the given generator alone."""

    def __init__(self, stop_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.network = nn.Linear(3, 1)
        self._stop_at = stop_at
        self._calls = 0

    def __call__(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        self._calls += 1
        if self._calls == self._stop_at:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.standard_normal((8, 3))).float()
        noise = 0.1 * torch.randn(8)
        loss = (self.network(x)[:, 0] - x.sum(dim=1) + noise).square().mean()
        return loss, {"error": loss.item()}


def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_CHECKPOINT_SECONDS", -1)
    whole, stopped, resumed = _Problem(), _Problem(stop_at=5), _Problem()
    loop.train(whole.network, whole, loop.Run(tmp_path / "whole", 30, 0.1, seed=3))
    run = loop.Run(tmp_path / "parts", 30, 0.1, seed=3)
    with pytest.raises(KeyboardInterrupt):
        loop.train(stopped.network, stopped, run)
    loop.train(resumed.network, resumed, run)
    assert torch.equal(whole.network.weight, resumed.network.weight)
    assert not torch.equal(whole.network.weight, stopped.network.weight)


def test_training_lowers_the_loss_and_logs_it(tmp_path: Path) -> None:
    problem = _Problem()
    loop.train(problem.network, problem, loop.Run(tmp_path, 200, 0.1, seed=0))
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(20, 201, 20))
    assert records[-1]["loss"] < 0.1 * records[0]["loss"] or records[-1]["loss"] < 0.05
    assert not problem.network.training
