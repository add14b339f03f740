from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.sigmas import partial_sigmas, shift_sigma, skipped_steps, start_and_shift, truncated_sigmas

shifts = st.floats(0.2, 12)
strengths = st.floats(0.05, 1)


@given(sigma=st.floats(0, 1), shift=shifts)
def test_a_shift_and_its_inverse_cancel(sigma: float, shift: float) -> None:
    assert shift_sigma(shift_sigma(sigma, shift), 1 / shift) == pytest.approx(sigma, abs=1e-9)


@given(low=st.floats(0, 0.99), gap=st.floats(1e-6, 0.01), shift=shifts)
def test_a_shift_keeps_the_order_and_the_ends(low: float, gap: float, shift: float) -> None:
    assert shift_sigma(low, shift) < shift_sigma(low + gap, shift)
    assert shift_sigma(0, shift) == 0
    assert shift_sigma(1, shift) == pytest.approx(1)


@pytest.mark.parametrize(
    ("steps", "strength", "skipped"),
    [(6, 1.0, 0), (20, 0.8, 4), (8, 0.6, 3), (10, 0.75, 3), (10, 0.85, 2), (24, 0.8, 5), (16, 0.7, 5)],
)
def test_the_rounding_rule(steps: int, strength: float, skipped: int) -> None:
    # 10 * 0.25 = 2.5 and 10 * 0.15 = 1.5 are the halves: both round up.
    assert skipped_steps(steps, strength) == skipped


def test_the_published_flux_stage() -> None:
    # Bottleneck Sampling, Table 4, second FLUX stage: N = 20, w = 0.8, s = 6; by hand 6 * 0.8 / (1 + 5 * 0.8).
    sigmas = truncated_sigmas(20, 0.8, 6.0)
    assert len(sigmas) == 17
    assert sigmas[0] == pytest.approx(4.8 / 5.0)
    assert sigmas[-2] == pytest.approx(6 * 0.05 / (1 + 5 * 0.05))
    assert sigmas[-1] == 0


@given(steps=st.integers(1, 60), strength=strengths, shift=shifts)
def test_truncation_is_a_partial_grid_from_the_cut(steps: int, strength: float, shift: float) -> None:
    skipped = skipped_steps(steps, strength)
    if skipped >= steps:
        with pytest.raises(ValueError, match="leave no step"):
            truncated_sigmas(steps, strength, shift)
        return
    expected = partial_sigmas(steps - skipped, 1 - skipped / steps, shift)
    assert truncated_sigmas(steps, strength, shift) == pytest.approx(expected, abs=1e-12)


@given(steps=st.integers(2, 40), start=st.floats(0.05, 1), shift=st.floats(0.5, 12))
def test_start_and_shift_invert_the_grid(steps: int, start: float, shift: float) -> None:
    found = start_and_shift(partial_sigmas(steps, start, shift))
    assert found is not None
    assert partial_sigmas(steps, *found) == pytest.approx(partial_sigmas(steps, start, shift), abs=1e-6)


def test_sigmas_of_no_shift_are_recognised() -> None:
    assert start_and_shift((1.0, 0.9, 0.1, 0.0)) is None
    assert start_and_shift((0.7, 0.0)) == (0.7, 1.0)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"steps": 0}, "steps >= 1"),
        ({"steps": 4, "strength": 0.0}, "0 < strength <= 1"),
        ({"steps": 4, "strength": 1.5}, "0 < strength <= 1"),
        ({"steps": 4, "shift": 0.0}, "shift > 0"),
        ({"steps": 4, "shift": math.inf}, "shift > 0"),
        ({"steps": 4, "strength": 0.1}, "leave no step"),
    ],
)
def test_broken_rules_are_named(arguments: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        truncated_sigmas(**arguments)  # type: ignore[arg-type]
