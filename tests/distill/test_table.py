from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gaussian import exact_velocity
from tuner.distill import bands
from tuner.distill.bands import everywhere
from tuner.distill.candidates import Candidates
from tuner.distill.clean import MOST_CALLS, CleanDistance
from tuner.distill.polish import polish, walk_way
from tuner.distill.rule import Network, Rule, check, weights
from tuner.distill.steps import Settings, best_steps
from tuner.distill.table import fill, middle_way
from tuner.distill.teacher import Choice, Teacher, walk
from tuner.errors import UserError
from tuner.solvers import available, load

SIGMAS = (1.0, 0.93, 0.8, 0.71, 0.5, 0.36, 0.2, 0.08, 0.0)
STEPS = len(SIGMAS) - 1


def one_way(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """dx/dsigma = x: every Euler step falls short of the true path, and by more where it is already short."""
    return x


def gaussian(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """The exact velocity of a flow from unit noise to Gaussian data of variances 4, 1 and 0.01."""
    velocity: torch.Tensor = exact_velocity(x, sigma, torch.tensor([4.0, 1.0, 0.01], dtype=x.dtype))
    return velocity


def bent(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Turns and pulls by an amount that depends on the level: nothing is monotone in it."""
    return torch.stack([x[..., 1], -x[..., 0], x[..., 2]], dim=-1) * math.cos(9 * sigma) * 2 + x.sin()


def start(prompts: int) -> torch.Tensor:
    return torch.randn(prompts, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def run(network: Network, teacher: Teacher, way: tuple[int, ...]) -> torch.Tensor:
    """Walks a way with Euler's rule; returns the squared distance to the teacher's end for every prompt."""
    x = teacher.x[0]
    for i, j in itertools.pairwise(way):
        x = x + (teacher.sigmas[j] - teacher.sigmas[i]) * network(x, teacher.sigmas[i])
    return (x - teacher.x[-1]).square().mean(dim=-1)


def rule(network: Network, teacher: Teacher, solver: str = "euler") -> Rule:
    return Rule(solver, teacher.sigmas, network, teacher.x[0])


def ways(steps: int) -> list[tuple[int, ...]]:
    return [(0, *inner, STEPS) for inner in itertools.combinations(range(1, STEPS), steps - 1)]


@pytest.mark.parametrize("choice", ["each", "joint"])
@pytest.mark.parametrize("steps", range(1, STEPS + 1))
def test_the_table_equals_brute_force_where_nearest_is_best(choice: Choice, steps: int) -> None:
    teacher = walk(one_way, start(4), SIGMAS)
    table = fill(teacher, one_way, everywhere(STEPS, STEPS), choice, "x_t")
    best = min(ways(steps), key=lambda way: float(run(one_way, teacher, way).mean()))
    assert [tuple(way) for way in table.ways(steps)] == [best] * 4
    np.testing.assert_allclose(table.cost[steps, -1], run(one_way, teacher, best), rtol=1e-9)


def error_bound(network: Network, teacher: Teacher, way: tuple[int, ...], lipschitz: float) -> float:
    """Sums the errors of single steps taken from the teacher, each grown by the steps after it."""
    bound = 0.0
    for i, j in itertools.pairwise(way):
        step = teacher.sigmas[j] - teacher.sigmas[i]
        missed = teacher.x[i] + step * network(teacher.x[i], teacher.sigmas[i]) - teacher.x[j]
        bound = (1 + abs(step) * lipschitz) * bound + float(missed.square().mean().sqrt())
    return bound


@pytest.mark.parametrize(("network", "lipschitz"), [(gaussian, 100.0), (bent, 3.0)])
def test_elsewhere_the_cost_lies_between_the_optimum_and_the_bound(network: Network, lipschitz: float) -> None:
    teacher = walk(network, start(5), SIGMAS)
    table = fill(teacher, network, everywhere(STEPS, STEPS), "joint", "x_t")
    gaps = []
    for steps in range(1, STEPS + 1):
        found = table.cost[steps, -1].mean()
        optimum = min(float(run(network, teacher, way).mean()) for way in ways(steps))
        bound = min(error_bound(network, teacher, way, lipschitz) for way in ways(steps))
        assert optimum <= found * (1 + 1e-9) + 1e-15
        assert math.sqrt(found) <= bound * (1 + 1e-9) + 1e-12
        np.testing.assert_allclose(found, run(network, teacher, tuple(table.ways(steps)[0])).mean(), atol=1e-15)
        gaps.append(found / optimum if optimum > 1e-12 else 1.0)
    assert table.cost[STEPS, -1].max() < 1e-20  # all of the teacher's own steps
    if network is bent:
        assert max(gaps) > 1.001  # the bound is needed: the recursion is not exact here


MULTISTEP = ("ab2", "deis-2", "dpmpp-2m", "res-2m", "unipc")


@pytest.mark.parametrize("choice", ["each", "joint"])
@pytest.mark.parametrize("solver", ["euler", "heun", *MULTISTEP])
@pytest.mark.parametrize("sigmas", [SIGMAS, SIGMAS[1:-1]])  # a later stage may start below 1 and end above 0
def test_the_ends_of_ways_are_those_that_the_solver_reaches(
    sigmas: tuple[float, ...], solver: str, choice: Choice
) -> None:
    teacher = walk(bent, start(2), sigmas)
    table = fill(teacher, bent, everywhere(teacher.steps, 4), choice, "x_t", solver)
    for prompt, way in enumerate(table.ways(4)):
        end = load(solver)(bent, teacher.x[0, prompt : prompt + 1], [sigmas[level] for level in way])
        np.testing.assert_allclose(
            table.cost[4, -1, prompt], (end - teacher.x[-1, prompt]).square().mean(), rtol=1e-6
        )


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(MULTISTEP), st.lists(st.floats(0.01, 1), min_size=2, max_size=18, unique=True), st.booleans()
)
def test_a_rules_weights_are_those_of_its_steps(solver: str, levels: list[float], last: bool) -> None:
    sigmas = tuple(sorted(levels, reverse=True))
    if min(high - low for high, low in itertools.pairwise(sigmas)) < 0.002:
        return
    if last:
        sigmas = (*sigmas[:-1], 0.0)
    x, asked, velocities = start(1), [], []

    def velocity(at: torch.Tensor, sigma: float) -> torch.Tensor:
        asked.append(at)
        velocities.append(bent(at, sigma))
        return velocities[-1]

    whole = load(solver)(velocity, x, sigmas if last else (*sigmas, 0.9 * sigmas[-1], 0.3 * sigmas[-1], 0.0))
    reached = whole if last else asked[len(sigmas) - 1]
    terms = [x, *velocities][: len(sigmas)]
    summed = sum(weight * term for weight, term in zip(weights(solver, sigmas, last), terms, strict=True))
    torch.testing.assert_close(summed, reached, rtol=1e-7, atol=1e-7)


def test_a_solver_is_searched_with_or_refused_for_a_reason() -> None:
    reasons = {}
    for solver in available():
        try:
            check(solver)
        except UserError as error:
            reasons[solver] = str(error)
    assert set(available()) - set(reasons) >= {"euler", "heun", *MULTISTEP}
    assert set(reasons) >= {"dpmpp-3m", "unipc-3", "euler-ancestral", "dpmpp-2m-sde"}
    assert "its last step but one is of another order" in reasons["dpmpp-3m"]
    assert "draws noise" in reasons["euler-ancestral"]
    assert reasons["unipc-3"].endswith("use one of ab2, deis-2, dpmpp-2m, euler, heun, res-2m, unipc.")


@pytest.mark.parametrize("choice", ["each", "joint"])
def test_clean_distance_prefers_the_step_whose_clean_prediction_is_nearest(choice: Choice) -> None:
    teacher = walk(bent, start(3), SIGMAS)
    by_x_0 = fill(teacher, bent, everywhere(STEPS, 3), choice, "x_0")
    level = 4

    def far(i: int) -> torch.Tensor:
        x = teacher.x[0] + (SIGMAS[i] - 1) * bent(teacher.x[0], 1.0)
        x = x + (SIGMAS[level] - SIGMAS[i]) * bent(x, SIGMAS[i])
        clean = teacher.x[level] - SIGMAS[level] * bent(teacher.x[level], SIGMAS[level])
        return (x - SIGMAS[level] * bent(x, SIGMAS[level]) - clean).square().mean(dim=-1)

    far_IP = torch.stack([far(i) for i in range(1, level)])  # three candidates: all may be looked at
    best = far_IP.argmin(dim=0) if choice == "each" else far_IP.mean(dim=1).argmin().expand(3)
    assert by_x_0.before[2, level].tolist() == (best + 1).tolist()
    np.testing.assert_allclose(by_x_0.cost[2, level], far_IP[best, torch.arange(3)], rtol=1e-9)


def test_clean_distance_takes_at_most_three_calls_where_latents_take_one() -> None:
    calls: list[float] = []

    def counting(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(sigma)
        return gaussian(x, sigma)

    teacher = walk(gaussian, start(3), np.linspace(1, 0, 41).tolist())
    fill(teacher, counting, everywhere(40, 6), "joint", "x_0")
    entries = bands.calls(everywhere(40, 6))
    assert entries < len(calls) <= MOST_CALLS * entries


class Given(Candidates):
    """Candidates that no way leads to."""

    def __init__(self, latents: torch.Tensor):
        self.prompts, self._rows, self._kept = latents.shape[1], latents.shape[1], latents


def test_on_a_linear_model_what_was_foretold_is_what_the_network_says() -> None:
    teacher = walk(gaussian, start(2), np.linspace(1, 0, 31).tolist())
    clean = CleanDistance(teacher, gaussian, "each")
    noise = torch.randn(8, 2, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    for level in (5, 20):
        for one in noise[:3]:  # spans all three dimensions
            clean.measured(level, Given(teacher.x[level] + 0.1 * one[None]))
        candidates = teacher.x[level] + 0.2 * noise.flip(0).cumsum(dim=0)
        far_IP, velocity = clean.measured(level, Given(candidates))
        sigma = teacher.sigmas[level]
        exact_IP = torch.stack(
            [(x - teacher.x[level] - sigma * (gaussian(x, sigma) - teacher.velocity[level])) for x in candidates]
        )
        assert far_IP.argmin(dim=0).tolist() == exact_IP.square().mean(dim=2).argmin(dim=0).tolist()
        winners = candidates[far_IP.argmin(dim=0), torch.arange(2)]
        torch.testing.assert_close(velocity, gaussian(winners, sigma))


def test_the_network_is_called_once_for_each_steps_and_level() -> None:
    calls: list[float] = []

    def counting(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(sigma)
        return bent(x, sigma)

    teacher = walk(bent, start(3), SIGMAS)
    fill(teacher, counting, everywhere(STEPS, 4), "each", "x_t")
    assert len(calls) == sum(STEPS - k for k in range(1, 4)) == bands.calls(everywhere(STEPS, 4))


@pytest.mark.parametrize("middle", [np.median, np.mean])
@settings(max_examples=50)
@given(data=st.data())
def test_medians_and_means_of_ways_are_a_way(middle: Any, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, 8))
    inner = st.lists(st.integers(1, 29), min_size=steps - 1, max_size=steps - 1, unique=True).map(sorted)
    ways_ = np.array([[0, *levels, 30] for levels in data.draw(st.lists(inner, min_size=1, max_size=7))])
    way = middle_way(ways_, middle)
    assert (way[0], way[-1]) == (0, 30)
    assert all(a < b for a, b in itertools.pairwise(way))


@settings(max_examples=50)
@given(st.integers(1, 12), st.integers(0, 60))
def test_thinned_levels_leave_ways_of_every_number_of_steps(steps: int, spare: int) -> None:
    levels = steps + spare
    allowed = bands.thinned(levels, steps)
    assert allowed[0] == {0}
    behind = {0}  # the levels that some way reaches
    for k in range(1, steps + 1):
        assert all(k <= level <= levels for level in allowed[k])
        behind = {level for level in allowed[k] if level > min(behind)}
        assert levels in behind


@pytest.mark.parametrize("steps", [4, 5, 10, 20])
def test_thinned_levels_take_a_seventh_of_the_calls(steps: int) -> None:
    whole = bands.calls(bands.everywhere(100, steps))
    assert whole / 9 < bands.calls(bands.thinned(100, steps)) <= whole / 7


@settings(max_examples=50)
@given(st.data())
def test_levels_around_a_way_are_those_near_it_that_leave_ways(data: st.DataObject) -> None:
    steps, radius = data.draw(st.integers(1, 8)), data.draw(st.integers(0, 3))
    inner = st.lists(st.integers(1, 29), min_size=steps - 1, max_size=steps - 1, unique=True).map(sorted)
    way = (0, *data.draw(inner), 30)
    near = bands.around(way, radius)
    others = itertools.product(*(range(level - radius, level + radius + 1) for level in way[1:-1]))
    for other in itertools.islice(others, 500):
        if all(a < b for a, b in itertools.pairwise((0, *other, 30))):
            assert all(level in band for level, band in zip((0, *other, 30), near, strict=True))
    assert all(abs(level - at) <= radius for at, band in zip(way, near, strict=True) for level in band)
    assert all(k <= level <= 30 - steps + k for k, band in enumerate(near[1:-1], 1) for level in band)


def test_a_fine_table_around_its_own_way_finds_it_again() -> None:
    teacher = walk(one_way, start(4), SIGMAS)
    whole = fill(teacher, one_way, everywhere(STEPS, 4), "joint", "x_t")
    way = middle_way(whole.ways(4))
    again = fill(teacher, one_way, bands.around(way, 1), "joint", "x_t")
    assert middle_way(again.ways(4)) == way
    np.testing.assert_array_equal(again.cost[4, -1], whole.cost[4, -1])


@pytest.mark.parametrize("most_steps", [0, 1, 5, 17, 40])
def test_polishing_walks_no_more_steps_than_it_may(most_steps: int) -> None:
    teacher = walk(bent, start(2), SIGMAS)
    walked = walk_way(rule(bent, teacher), teacher, (0, 1, 2, 3, STEPS))
    calls: list[float] = []

    def counting(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(sigma)
        return bent(x, sigma)

    def cost(end: torch.Tensor) -> float:
        return float((end - teacher.x[-1]).square().mean())

    found, taken = polish(rule(counting, teacher), teacher, walked, cost, most_steps)
    assert len(calls) == taken <= most_steps
    assert cost(found.end) <= cost(walked.end)


@pytest.mark.parametrize("network", [gaussian, bent])
def test_coarse_to_fine_betters_the_coarse_table_within_a_quarter_of_the_calls(network: Network) -> None:
    teacher = walk(network, start(6), np.linspace(1, 0, 101).tolist())
    wanted = [5, 10, 20]
    calls: list[float] = []

    def counting(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(sigma)
        return network(x, sigma)

    coarse = fill(teacher, network, bands.thinned(100, 20), "joint", "x_t")
    fine = best_steps(counting, teacher, wanted, Settings(coarse_to_fine=True, distance="x_t"))
    assert 4 * len(calls) <= bands.calls(everywhere(100, 20)) + sum(wanted)
    for steps in wanted:
        assert len(fine[steps].levels) == steps + 1
        assert fine[steps].cost < coarse.cost[steps, -1].mean()


def test_two_steps_of_least_mean_log_cost_are_those_of_brute_force() -> None:
    x = start(5)
    x[2] *= 10  # far from its teacher wherever it goes: the mean cost is this prompt's alone
    teacher = walk(gaussian, x, SIGMAS)
    table = fill(teacher, gaussian, everywhere(STEPS, 2), "joint-log", "x_t")
    best = min(ways(2), key=lambda way: float(run(gaussian, teacher, way).log().mean()))
    assert tuple(table.ways(2)[0]) == best
    assert best != min(ways(2), key=lambda way: float(run(gaussian, teacher, way).mean()))


@pytest.mark.parametrize("steps", range(2, STEPS))
def test_no_single_move_betters_a_polished_way(steps: int) -> None:
    teacher = walk(bent, start(5), SIGMAS)

    def cost(end: torch.Tensor) -> float:
        return float((end - teacher.x[-1]).square().mean())

    worst = max(ways(steps), key=lambda way: float(run(bent, teacher, way).mean()))
    walked = walk_way(rule(bent, teacher), teacher, worst)
    for _ in range(STEPS):  # until a sweep moves nothing
        walked, _taken = polish(rule(bent, teacher), teacher, walked, cost)
    found = walked.way
    least = float(run(bent, teacher, found).mean())
    assert cost(walked.end) == pytest.approx(least)
    assert least < float(run(bent, teacher, worst).mean())
    for k in range(1, steps):
        for level in (found[k] - 1, found[k] + 1):
            if found[k - 1] < level < found[k + 1]:
                moved = (*found[:k], level, *found[k + 1 :])
                assert float(run(bent, teacher, moved).mean()) >= least


def test_a_table_has_no_ways_that_were_not_asked_for() -> None:
    teacher = walk(one_way, start(1), SIGMAS)
    table = fill(teacher, one_way, everywhere(STEPS, 2))
    with pytest.raises(ValueError, match="no way of 3 steps"):
        table.ways(3)
