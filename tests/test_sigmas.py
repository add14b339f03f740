from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.sigmas import (
    beta_sigmas,
    exponential_sigmas,
    karras_sigmas,
    log_linear,
    partial_sigmas,
    shift_sigma,
    skipped_steps,
    start_and_shift,
    truncated_sigmas,
)

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


@given(steps=st.integers(2, 40), start=st.floats(0.1, 1), part=st.floats(0.02, 0.95), shift=st.floats(0.5, 12))
def test_start_and_shift_invert_a_grid_that_ends_early(
    steps: int, start: float, part: float, shift: float
) -> None:
    sigmas = partial_sigmas(steps, start, shift, start * part)
    found = start_and_shift(sigmas)
    assert found is not None
    end = shift_sigma(sigmas[-1], 1 / found[1])
    assert partial_sigmas(steps, *found, end) == pytest.approx(sigmas, abs=1e-7)


@given(steps=st.integers(3, 60), lowest=st.floats(0.001, 0.6), rho=st.floats(1, 20))
def test_karras_levels_are_even_under_the_root_and_end_in_a_geometric_grid(
    steps: int, lowest: float, rho: float
) -> None:
    sigmas = karras_sigmas(steps, lowest, rho)
    assert len(sigmas) == steps + 1
    assert (sigmas[0], sigmas[-2], sigmas[-1]) == (1, lowest, 0)
    roots = [sigma ** (1 / rho) for sigma in sigmas[:-1]]
    gaps = [high - low for high, low in itertools.pairwise(roots)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps), rel=1e-6)
    ratios = [low / high for high, low in itertools.pairwise(exponential_sigmas(steps, lowest)[:-1])]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-9)
    assert karras_sigmas(steps, lowest, 1e7) == pytest.approx(exponential_sigmas(steps, lowest), abs=1e-5)


@given(steps=st.integers(1, 60), concentration=st.floats(0.3, 1), shift=st.floats(0.5, 12))
def test_beta_levels_are_symmetric_and_uniform_at_one(steps: int, concentration: float, shift: float) -> None:
    sigmas = beta_sigmas(steps, concentration, shift)
    plain = [shift_sigma(sigma, 1 / shift) for sigma in sigmas]
    assert plain == pytest.approx([1 - sigma for sigma in reversed(plain)], abs=1e-9)
    assert beta_sigmas(steps, 1, shift) == pytest.approx(partial_sigmas(steps, 1, shift), abs=1e-9)
    assert all(high > low for high, low in itertools.pairwise(sigmas))


def test_the_beta_distribution_with_parameters_one_half_is_the_arcsine_law() -> None:
    quantiles = [math.sin(math.pi / 2 * (1 - k / 6)) ** 2 for k in range(7)]
    assert beta_sigmas(6, 0.5, 1.0) == pytest.approx(quantiles, abs=1e-12)


def test_one_step_is_the_same_in_every_family() -> None:
    for sigmas in (karras_sigmas(1, 0.1, 7), exponential_sigmas(1, 0.1), beta_sigmas(1, 0.6, 3)):
        assert sigmas == (1, 0)


PUBLISHED = (0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.0)


def test_a_list_in_its_own_number_of_steps_is_itself() -> None:
    assert log_linear(PUBLISHED, 10) == PUBLISHED
    assert log_linear(PUBLISHED, 1) == (0.9968, 0.0)


def test_twice_the_steps_add_geometric_means() -> None:
    doubled = log_linear(PUBLISHED, 20)
    assert doubled[::2] == PUBLISHED
    for before, between, after in zip(doubled[:-2:2], doubled[1:-2:2], doubled[2::2], strict=False):
        assert between == pytest.approx(math.sqrt(before * after))
    assert doubled[-2] == pytest.approx(math.sqrt(0.2808 * 0.001))


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=20, unique=True), st.booleans(), st.integers(1, 60))
def test_a_resized_list_falls_between_the_same_ends(levels: list[float], to_zero: bool, steps: int) -> None:
    sigmas = (*sorted(levels, reverse=True), 0.0 if to_zero else 0.005)
    resized = log_linear(sigmas, steps)
    assert len(resized) == steps + 1
    assert (resized[0], resized[-1]) == (sigmas[0], sigmas[-1])
    assert all(high > low or high == pytest.approx(low, rel=1e-12) for high, low in itertools.pairwise(resized))
