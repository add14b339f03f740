from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studies.propose.loss_scale import Warp

numbers = st.floats(-100, 100)
WARP = Warp(best=np.array([1.0, -2.0]), unit=np.array([0.5, 3.0]))


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=5))
def test_losses_come_back_and_keep_their_order(rows: list[tuple[float, float]]) -> None:
    losses = np.array(rows)
    warped = WARP.forward(losses)
    assert WARP.inverse(warped) == pytest.approx(losses, abs=1e-9)
    for k in range(2):
        assert (np.diff(warped[np.argsort(losses[:, k]), k]) >= 0).all()


def test_it_is_linear_close_to_the_best_and_logarithmic_far_from_it() -> None:
    units = WARP.forward(WARP.best + WARP.unit * np.array([[0.0], [0.01], [1000.0], [10000.0]]))
    assert units[:, 0] == pytest.approx(units[:, 1])
    assert units[:2, 0] == pytest.approx([0.0, 0.01], abs=1e-6)
    assert units[3, 0] - units[2, 0] == pytest.approx(np.log(10), abs=1e-5)


@given(numbers, numbers)
def test_a_small_error_is_as_large_on_the_scale_as_the_scale_is_steep(one: float, other: float) -> None:
    losses, small = np.array([[one, other]]), np.full((1, 2), 1e-5)
    moved = (WARP.forward(losses + small) - WARP.forward(losses - small)) / 2
    assert WARP.errors(losses, small) == pytest.approx(moved, rel=1e-3)


def test_its_unit_is_a_tenth_of_the_range_or_what_errors_hide() -> None:
    losses, reference = np.array([[2.0, 3.0], [1.0, 7.0]]), np.array([11.0, 7.0])
    found = Warp.between(losses, reference, np.array([[0.2, 4.0], [0.1, 5.0]]))
    assert found.best.tolist() == [1.0, 3.0]
    assert found.unit == pytest.approx([1.0, 4.5])


def test_equal_losses_without_errors_have_a_scale() -> None:
    losses = np.full((3, 2), 5.0)
    found = Warp.between(losses, losses[0], np.zeros((3, 2)))
    assert found.forward(losses).tolist() == np.zeros((3, 2)).tolist()
