"""Budgets and schedules of a model whose every step takes two network passes."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import search_spaces
from tests.search_spaces.anchored import loadable
from tests.search_spaces.drawn import DrawnTrial
from tuner.budget import parse_budget
from tuner.errors import UserError
from tuner.flops import price, tflops_per_pass
from tuner.models import Blueprint, blueprint


@functools.cache
def guided() -> Blueprint:
    medium = blueprint("sd3.5-medium")
    small = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16, "joint_attention_dim": 32}
    small |= {"caption_projection_dim": 32, "pooled_projection_dim": 24, "dual_attention_layers": ()}
    return replace(medium, transformer=dict(medium.transformer) | small, height=128, width=128, text_tokens=8)


BASELINE = price(guided().baseline(), guided())


def test_the_baseline_takes_two_passes_per_step() -> None:
    assert BASELINE.nfe == 80
    assert BASELINE.tflops == pytest.approx(80 * tflops_per_pass(guided(), guided().size))


def test_a_limit_of_passes_counts_both() -> None:
    budget = parse_budget("16nfe", BASELINE, guided(), guided().size)
    assert budget.allows(price(guided().plain(8), guided()))
    assert not budget.allows(price(guided().plain(9), guided()))
    assert budget.tflops == pytest.approx(16 * tflops_per_pass(guided(), guided().size))
    with pytest.raises(UserError, match="the smallest budget is 2nfe"):
        parse_budget("1nfe", BASELINE, guided(), guided().size)


@pytest.mark.parametrize("name", loadable())
@settings(max_examples=40, deadline=None)
@given(data=st.data(), text=st.sampled_from(["1x", "2.3x", "40x", "2nfe", "17nfe"]))
def test_every_schedule_fits_the_budget(name: str, data: Any, text: str) -> None:
    budget = parse_budget(text, BASELINE, guided(), guided().size)
    space = search_spaces.load(name, guided(), guided().size, budget)
    assert budget.allows(price(space.suggest(DrawnTrial(data)), guided()))
