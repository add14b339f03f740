from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tuner.distill.swd.losses import (
    HUBER,
    RBF_WIDTHS,
    discriminator_loss,
    distribution_matching,
    generator_loss,
    patch_distance,
    patch_mmd,
)
from tuner.distill.swd.settings import KERNELS, Kernel


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()


def gaussians_apart(shift: float, median: float) -> float:
    """The MMD of N(0, I) and N(shift, I) in three dimensions, for the sum of the RBF kernels.

    For one width w it is 2 (w^2 / (w^2 + 2))^(3/2) (1 - exp(-3 shift^2 / (2 (w^2 + 2)))), squared.
    """
    squares = [(median * width) ** 2 for width in RBF_WIDTHS]
    terms = [2 * (w2 / (w2 + 2)) ** 1.5 * (1 - math.exp(-3 * shift**2 / (2 * (w2 + 2)))) for w2 in squares]
    return math.sqrt(sum(terms))


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_the_patch_loss_is_known_for_shifted_gaussians(shift: float) -> None:
    x, shifted = normal(8, 400, 3), normal(8, 400, 3, seed=1) + shift
    median = torch.cdist(x[0], shifted[0]).median().item()
    assert patch_mmd(x, shifted, "linear").item() == pytest.approx(shift - HUBER, rel=0.1)
    assert patch_mmd(x, shifted, "rbf").item() == pytest.approx(gaussians_apart(shift, median), rel=0.1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_patch_loss_compares_sets_and_not_places(kernel: Kernel) -> None:
    x = normal(2, 9, 3)
    assert patch_mmd(x, x.flip(1), kernel).item() == pytest.approx(0, abs=1e-3)
    assert patch_distance(x, x.flip(1)).item() > 0.5
    assert patch_distance(x, x).item() == 0


@given(distance=st.floats(0, 50))
def test_the_linear_kernel_measures_the_distance_of_means(distance: float) -> None:
    x = normal(2, 5, 3)
    loss = patch_mmd(x, x + distance, "linear").item()
    assert loss == pytest.approx(math.sqrt(distance**2 + HUBER**2) - HUBER, abs=1e-4)


@given(scale=st.floats(1e-2, 1e3))
def test_the_rbf_kernel_does_not_depend_on_the_units_of_the_features(scale: float) -> None:
    """Its width is the median distance, so it is as sharp for features of any size."""
    x, y = normal(2, 12, 4), normal(2, 12, 4, seed=1) + 1
    assert patch_mmd(scale * x, scale * y, "rbf").item() == pytest.approx(patch_mmd(x, y, "rbf").item(), rel=1e-3)


def test_the_rbf_kernel_tells_spreads_apart_that_the_linear_one_cannot() -> None:
    x = normal(1, 300, 2)
    x = x - x.mean(dim=1, keepdim=True)
    assert patch_mmd(x, 3 * x, "linear").item() == pytest.approx(0, abs=1e-3)
    assert patch_mmd(x, 3 * x, "rbf").item() > 0.1


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_patch_loss_is_at_rest_at_the_real_patches(kernel: Kernel) -> None:
    real = normal(2, 8, 3)
    student = real.clone().requires_grad_()
    loss = patch_mmd(student, real, kernel)
    loss.backward()
    assert student.grad is not None
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.grad.norm() < 1e-3


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_patch_loss_pulls_generated_patches_towards_real_ones(kernel: Kernel) -> None:
    real = normal(2, 8, 3)
    student = (real + 5).requires_grad_()
    patch_mmd(student, real, kernel).backward()
    assert student.grad is not None
    assert (student.grad.mean(dim=1) > 0).all()  # a step against the gradient lowers the mean of every feature


def test_distribution_matching_follows_the_difference_of_the_two_predictions() -> None:
    student = normal(2, 3, 4, 4).requires_grad_()
    teacher, fake = normal(2, 3, 4, 4, seed=1), normal(2, 3, 4, 4, seed=2)
    distribution_matching(student, teacher, fake).backward()
    scale = (student - teacher).abs().mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(student.grad, ((fake - teacher) / scale / student.numel()).detach())


def test_distribution_matching_moves_a_gaussian_onto_the_teachers() -> None:
    """Both models know their clean images exactly: the posterior mean of N(mean, 1/4) at level 1/2."""
    mean, wanted, generator = torch.zeros(1, requires_grad=True), 3.0, torch.Generator().manual_seed(0)
    descent = torch.optim.Adam([mean], lr=0.1)
    for _ in range(100):
        spread, noise = torch.randn(2, 64, 1, 2, 2, generator=generator)
        student = mean + spread / 2
        noisy = (student.detach() + noise) / 2

        def clean(centre: float, x: torch.Tensor) -> torch.Tensor:
            return centre + (2 * x - centre) / 5  # gain: variance 1/4 of the image over 1/4 + 1

        descent.zero_grad()
        distribution_matching(student, clean(wanted, noisy), clean(mean.item(), noisy)).backward()
        descent.step()
    assert mean.item() == pytest.approx(wanted, abs=0.2)


def test_distribution_matching_is_at_rest_where_teacher_and_fake_agree() -> None:
    student, same = normal(1, 3, 4, 4).requires_grad_(), normal(1, 3, 4, 4, seed=1)
    loss = distribution_matching(student, same, same)
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


def test_the_two_sides_of_the_adversarial_loss_pull_in_opposite_directions() -> None:
    logits = torch.zeros(3, requires_grad=True)
    assert generator_loss(logits).item() == pytest.approx(math.log(2))
    assert discriminator_loss(logits, logits).item() == pytest.approx(2 * math.log(2))
    (up,) = torch.autograd.grad(generator_loss(logits), logits)
    (down,) = torch.autograd.grad(discriminator_loss(torch.ones(3), logits), logits)
    assert (up < 0).all()
    assert (down > 0).all()
